#pragma once
// TensorProto into Tensor: every storage form, widened types, external files.
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "repquant/core/files.h"
#include "repquant/core/half.h"
#include "repquant/core/tensor.h"
#include "repquant/load/onnx/messages.h"
#include "repquant/load/onnx/onnx.h"

namespace repquant::load {

// ONNX type numbers; those above 16 are newer than the message classes.
enum OnnxType : int {
  kFloat = 1, kUint8, kInt8, kUint16, kInt16, kInt32, kInt64, kString, kBool, kFloat16, kDouble,
  kUint32, kUint64, kComplex64, kComplex128, kBfloat16, kFloat8E4M3Fn, kFloat8E4M3Fnuz, kFloat8E5M2,
  kFloat8E5M2Fnuz, kUint4, kInt4
};

// The element type a value of this ONNX type has in a Graph; kUnsupported (naming `subject`) for
// strings, complex numbers and numbers unknown here.
DType graph_type(int onnx_type, const std::string& subject);

float float8_to_float(uint8_t bits, int onnx_type);  // exact

class TensorReader {
 public:
  TensorReader(std::filesystem::path base_folder, const OnnxLimits& limits)
      : base_(std::move(base_folder)), limits_(limits) {}

  // Checks that the stored bytes fit the shape before anything is allocated. NaN is kCorruptFile
  // when `refuse_nan`. `subject` is like: tensor "blocks.0.weight".
  Tensor read(const onnx::TensorProto& proto, const std::string& subject, bool refuse_nan);
  // Counts memory against the limit; kResourceExhausted when it is spent.
  void charge(uint64_t bytes, const std::string& subject);

 private:
  std::string_view external(const onnx::TensorProto& proto, const std::string& subject);
  const MappedFile& open(const std::string& location, const std::string& subject);

  std::filesystem::path base_;
  OnnxLimits limits_;
  std::map<std::string, MappedFile> files_;
  uint64_t spent_ = 0;
};

}  // namespace repquant::load
