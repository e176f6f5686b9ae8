#include "repquant/interpret/ops/ops.h"

#include <algorithm>

namespace repquant::ops {

void refuse(const Node& node, const std::string& what) {
  throw Error(ErrorCode::kUnsupported, "interpret: node \"" + node.name + "\" (" +
                                           std::string(name_of(node.op)) + "): " + what);
}

void malformed(const Node& node, const std::string& what) {
  throw Error(ErrorCode::kCorruptFile, "interpret: node \"" + node.name + "\" (" +
                                           std::string(name_of(node.op)) + "): " + what);
}

bool present(Inputs inputs, size_t index) {
  return index < inputs.size() && inputs[index].defined();
}

const at::Tensor& required(const Node& node, Inputs inputs, size_t index) {
  if (!present(inputs, index))
    malformed(node, "expected input " + std::to_string(index) + ", got none");
  return inputs[index];
}

at::Tensor optional(Inputs inputs, size_t index) {
  return present(inputs, index) ? inputs[index] : at::Tensor();
}

std::vector<int64_t> to_ints(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU, at::kLong).contiguous();
  const int64_t* data = host.const_data_ptr<int64_t>();
  return {data, data + host.numel()};
}

std::vector<double> to_reals(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU, at::kDouble).contiguous();
  const double* data = host.const_data_ptr<double>();
  return {data, data + host.numel()};
}

std::vector<int64_t> ints_of(const Node& node, Inputs inputs, size_t index,
                             const std::string& attr) {
  if (present(inputs, index)) return to_ints(inputs[index]);
  return node.attrs.integers(attr);
}

int64_t normal_axis(const Node& node, int64_t axis, int64_t rank) {
  const int64_t normal = axis < 0 ? axis + rank : axis;
  if (normal < 0 || normal >= std::max<int64_t>(rank, 1)) {
    malformed(node,
              "expected an axis of rank " + std::to_string(rank) + ", got " + std::to_string(axis));
  }
  return normal;
}

std::vector<int64_t> normal_axes(const Node& node, std::vector<int64_t> axes, int64_t rank) {
  for (int64_t& axis : axes) axis = normal_axis(node, axis, rank);
  return axes;
}

bool is_unsigned_wide(at::ScalarType type) {
  return type == at::kUInt16 || type == at::kUInt32 || type == at::kUInt64;
}

at::Tensor widened(const at::Tensor& tensor) {
  return is_unsigned_wide(tensor.scalar_type()) ? tensor.to(at::kLong) : tensor;
}

at::ScalarType dtype_of_onnx(const Node& node, int64_t code) {
  switch (code) {
    case 1: return at::kFloat;
    case 2: return at::kByte;
    case 3: return at::kChar;
    case 4: return at::kUInt16;
    case 5: return at::kShort;
    case 6: return at::kInt;
    case 7: return at::kLong;
    case 9: return at::kBool;
    case 10: return at::kHalf;
    case 11: return at::kDouble;
    case 12: return at::kUInt32;
    case 13: return at::kUInt64;
    case 16: return at::kBFloat16;
    default: refuse(node, "element type " + std::to_string(code) + " of ONNX is not supported");
  }
}

namespace {

// SAME: output = ceil(input / stride); the odd element goes to the end (upper) or the begin
// (lower).
void pad_same(Window& w, const at::Tensor& x, bool lower) {
  for (size_t i = 0; i < w.kernel.size(); ++i) {
    const int64_t size = x.size(static_cast<int64_t>(i) + 2);
    const int64_t out = (size + w.strides[i] - 1) / w.strides[i];
    const int64_t extent = (w.kernel[i] - 1) * w.dilations[i] + 1;
    const int64_t total = std::max<int64_t>(0, (out - 1) * w.strides[i] + extent - size);
    w.pad_begin[i] = lower ? total - total / 2 : total / 2;
    w.pad_end[i] = total - w.pad_begin[i];
  }
}

}  // namespace

Window window_of(const Node& node, const at::Tensor& x, std::vector<int64_t> kernel) {
  const size_t rank = kernel.size();
  if (rank == 0 || x.dim() != static_cast<int64_t>(rank) + 2) {
    malformed(node, "expected an input of rank " + std::to_string(rank + 2) + ", got " +
                        to_string(x.sizes()));
  }
  Window w;
  w.kernel = std::move(kernel);
  w.strides = node.attrs.integers("strides", std::vector<int64_t>(rank, 1));
  w.dilations = node.attrs.integers("dilations", std::vector<int64_t>(rank, 1));
  const auto pads = node.attrs.integers("pads", std::vector<int64_t>(2 * rank, 0));
  if (w.strides.size() != rank || w.dilations.size() != rank || pads.size() != 2 * rank ||
      std::ranges::any_of(w.strides, [](int64_t s) { return s < 1; })) {
    malformed(node, "strides, dilations or pads do not fit a kernel of " + std::to_string(rank) +
                        " axes");
  }
  w.pad_begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(rank));
  w.pad_end.assign(pads.begin() + static_cast<std::ptrdiff_t>(rank), pads.end());
  const std::string auto_pad = node.attrs.text("auto_pad", "NOTSET");
  if (auto_pad == "VALID") {
    w.pad_begin.assign(rank, 0);
    w.pad_end.assign(rank, 0);
  } else if (auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER") {
    pad_same(w, x, auto_pad == "SAME_LOWER");
  } else if (auto_pad != "NOTSET" && !auto_pad.empty()) {
    malformed(node, "unknown auto_pad \"" + auto_pad + "\"");
  }
  return w;
}

std::vector<int64_t> pad_argument(const std::vector<int64_t>& begin,
                                  const std::vector<int64_t>& end) {
  std::vector<int64_t> result;
  for (size_t i = begin.size(); i-- > 0;) {
    result.push_back(begin[i]);
    result.push_back(end[i]);
  }
  return result;
}

}  // namespace repquant::ops
