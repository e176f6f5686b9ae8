#pragma once
// What the op files share. Private to repquant/interpret.
#include <span>
#include <string>
#include <vector>

#include "repquant/interpret/interpreter.h"

namespace repquant::ops {

using Tensors = std::vector<at::Tensor>;
using Inputs = std::span<const at::Tensor>;
using ProbabilitiesHook = std::function<at::Tensor(const at::Tensor&)>;

// One table a file; nullptr where the op belongs to another file.
OpFunction elementwise_op(OpKind op);
OpFunction binary_op(OpKind op);
OpFunction reduce_op(OpKind op);
OpFunction matrix_op(OpKind op);
OpFunction attention_op(OpKind op);
OpFunction convolution_op(OpKind op);
OpFunction norm_op(OpKind op);
OpFunction pool_op(OpKind op);
OpFunction resize_op(OpKind op);
OpFunction movement_op(OpKind op);
OpFunction index_op(OpKind op);
OpFunction quantize_op(OpKind op);

// The composite of graph.h; `hook` (may be empty) sees the probabilities [.., H, T, S].
at::Tensor multi_head_attention(const Node& node, Inputs inputs, const ProbabilitiesHook& hook);

[[noreturn]] void refuse(const Node& node, const std::string& what);   // kUnsupported
[[noreturn]] void malformed(const Node& node, const std::string& what);  // kCorruptFile

const at::Tensor& required(const Node& node, Inputs inputs, size_t index);
at::Tensor optional(Inputs inputs, size_t index);                      // undefined when absent
bool present(Inputs inputs, size_t index);

std::vector<int64_t> to_ints(const at::Tensor& tensor);                // flattened, on the host
std::vector<double> to_reals(const at::Tensor& tensor);
// A list given as input `index` or, as older opsets do, as attribute; empty when neither is there.
std::vector<int64_t> ints_of(const Node& node, Inputs inputs, size_t index,
                             const std::string& attr);
int64_t normal_axis(const Node& node, int64_t axis, int64_t rank);     // into [0, rank)
std::vector<int64_t> normal_axes(const Node& node, std::vector<int64_t> axes, int64_t rank);
bool is_unsigned_wide(at::ScalarType type);                            // u16, u32, u64
at::Tensor widened(const at::Tensor& tensor);                          // u16, u32, u64 -> i64
at::ScalarType dtype_of_onnx(const Node& node, int64_t code);          // TensorProto.DataType

// Spatial window of convolutions and pools, with auto_pad resolved for one input size.
struct Window {
  std::vector<int64_t> kernel, strides, dilations, pad_begin, pad_end;
};
Window window_of(const Node& node, const at::Tensor& x, std::vector<int64_t> kernel);
// Begin and end per spatial axis -> the argument of at::constant_pad_nd (last axis first).
std::vector<int64_t> pad_argument(const std::vector<int64_t>& begin,
                                  const std::vector<int64_t>& end);

}  // namespace repquant::ops
