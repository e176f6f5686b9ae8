#include "repquant/core/tensor.h"

namespace repquant {

size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kF64: case DType::kI64: case DType::kU64: return 8;
    case DType::kF32: case DType::kI32: case DType::kU32: return 4;
    case DType::kF16: case DType::kBF16: case DType::kI16: case DType::kU16: return 2;
    case DType::kI8: case DType::kU8: case DType::kBool: return 1;
  }
  REPQUANT_CHECK(!"known dtype");
}

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "F32";
    case DType::kF64: return "F64";
    case DType::kF16: return "F16";
    case DType::kBF16: return "BF16";
    case DType::kI8: return "I8";
    case DType::kU8: return "U8";
    case DType::kI16: return "I16";
    case DType::kU16: return "U16";
    case DType::kI32: return "I32";
    case DType::kU32: return "U32";
    case DType::kI64: return "I64";
    case DType::kU64: return "U64";
    case DType::kBool: return "BOOL";
  }
  REPQUANT_CHECK(!"known dtype");
}

int64_t element_count(std::span<const int64_t> shape) {
  int64_t count = 1;
  for (const int64_t d : shape) {
    if (d < 0 || __builtin_mul_overflow(count, d, &count)) {
      throw Error(ErrorCode::kCorruptFile, "tensor: shape " + to_string(shape) + " overflows");
    }
  }
  return count;
}

std::string to_string(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

Tensor::Tensor(DType dtype, Shape shape)
    : dtype_(dtype), shape_(std::move(shape)), size_(element_count(shape_)) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(size_, static_cast<int64_t>(size_of(dtype)), &bytes)) {
    throw Error(ErrorCode::kCorruptFile, "tensor: shape " + to_string(shape_) + " overflows");
  }
  bytes_.resize(static_cast<size_t>(bytes));
}

void Tensor::reshape(Shape shape) {
  REPQUANT_CHECK(element_count(shape) == size_);
  shape_ = std::move(shape);
}

}  // namespace repquant
