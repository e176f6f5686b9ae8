#include <cstring>

#include "repquant/interpret/interpreter.h"

namespace repquant {

at::ScalarType to_aten(DType dtype) {
  switch (dtype) {
    case DType::kF32: return at::kFloat;
    case DType::kF64: return at::kDouble;
    case DType::kF16: return at::kHalf;
    case DType::kBF16: return at::kBFloat16;
    case DType::kI8: return at::kChar;
    case DType::kU8: return at::kByte;
    case DType::kI16: return at::kShort;
    case DType::kU16: return at::kUInt16;
    case DType::kI32: return at::kInt;
    case DType::kU32: return at::kUInt32;
    case DType::kI64: return at::kLong;
    case DType::kU64: return at::kUInt64;
    case DType::kBool: return at::kBool;
  }
  REPQUANT_CHECK(!"known dtype");
}

DType from_aten(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return DType::kF32;
    case at::kDouble: return DType::kF64;
    case at::kHalf: return DType::kF16;
    case at::kBFloat16: return DType::kBF16;
    case at::kChar: return DType::kI8;
    case at::kByte: return DType::kU8;
    case at::kShort: return DType::kI16;
    case at::kUInt16: return DType::kU16;
    case at::kInt: return DType::kI32;
    case at::kUInt32: return DType::kU32;
    case at::kLong: return DType::kI64;
    case at::kUInt64: return DType::kU64;
    case at::kBool: return DType::kBool;
    default: break;
  }
  throw Error(ErrorCode::kUnsupported, std::string("interpret: element type ") +
                                           c10::toString(type) + " has no host tensor");
}

at::Tensor to_aten(const Tensor& tensor) {
  at::Tensor result = at::empty(tensor.shape(), at::TensorOptions().dtype(to_aten(tensor.dtype())));
  if (tensor.bytes() > 0) std::memcpy(result.mutable_data_ptr(), tensor.data(), tensor.bytes());
  return result;
}

Tensor from_aten(const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
  Tensor result(from_aten(host.scalar_type()), host.sizes().vec());
  REPQUANT_CHECK(result.bytes() == host.nbytes());
  if (result.bytes() > 0) std::memcpy(result.data(), host.const_data_ptr(), result.bytes());
  return result;
}

}  // namespace repquant
