// ONNX's own quantized ops. Integer products are formed in double, where they are exact.
#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

// A scale or zero point shaped to broadcast over x: one value, one a channel of `axis`, or one a
// block of `block` elements along it.
at::Tensor spread(const Node& node, const at::Tensor& parameter, const at::Tensor& x) {
  if (parameter.numel() == 1) return parameter.reshape({});
  const int64_t axis = normal_axis(node, node.attrs.integer("axis", 1), x.dim());
  const int64_t block = node.attrs.integer("block_size", 0);
  if (block > 0 && parameter.dim() == x.dim()) {
    return parameter.repeat_interleave(block, axis).slice(axis, 0, x.size(axis));
  }
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[static_cast<size_t>(axis)] = parameter.numel();
  return parameter.reshape(shape);
}

std::pair<double, double> limits(const Node& node, at::ScalarType type) {
  switch (type) {
    case at::kByte: return {0, 255};
    case at::kChar: return {-128, 127};
    case at::kUInt16: return {0, 65535};
    case at::kShort: return {-32768, 32767};
    default: refuse(node, std::string("codes of type ") + c10::toString(type));
  }
}

// Codes of real values already divided by the scale: round half to even, add z, saturate.
at::Tensor codes(const Node& node, const at::Tensor& scaled, const at::Tensor& zero,
                 at::ScalarType type) {
  const auto [low, high] = limits(node, type);
  return (at::round(scaled) + zero.to(scaled.scalar_type())).clamp(low, high).to(type);
}

Tensors quantize_linear(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t code = node.attrs.integer("output_dtype", 0);
  const at::Tensor zero = present(in, 2) ? in[2] : at::zeros({}, at::kByte);
  const auto type = !present(in, 2) && code != 0 ? dtype_of_onnx(node, code) : zero.scalar_type();
  const at::Tensor scaled = x / spread(node, required(node, in, 1), x);
  return {codes(node, scaled, spread(node, widened(zero), x), type)};
}

Tensors dequantize_linear(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const at::Tensor scale = spread(node, required(node, in, 1), x);
  at::Tensor levels = x.to(at::kLong);
  if (present(in, 2)) levels = levels - spread(node, in[2].to(at::kLong), x);
  return {levels.to(scale.scalar_type()) * scale};
}

Tensors dynamic_quantize_linear(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const at::Tensor low = x.amin().clamp_max(0), high = x.amax().clamp_min(0);
  const at::Tensor scale = (high - low) / 255.0;
  const at::Tensor zero = at::round(-low / scale).clamp(0, 255);
  return {codes(node, x / scale, zero, at::kByte), scale, zero.to(at::kByte)};
}

// x - z in double. `rows`: a zero point of rank 1 belongs to the rows of a matrix.
at::Tensor centred(const Node& node, Inputs in, size_t x, size_t zero, bool rows) {
  const at::Tensor codes = required(node, in, x).to(at::kDouble);
  if (!present(in, zero)) return codes;
  at::Tensor z = in[zero].to(at::kDouble);
  if (z.numel() == 1) z = z.reshape({});
  return codes - (rows && z.dim() == 1 ? z.unsqueeze(-1) : z);
}

// Inputs a, sa, za, b, sb, zb, sy, zy.
Tensors qlinear_matmul(const Node& node, Inputs in) {
  const at::Tensor product =
      at::matmul(centred(node, in, 0, 2, true), centred(node, in, 3, 5, false));
  at::Tensor sa = required(node, in, 1).to(at::kDouble);
  if (sa.dim() == 1 && sa.numel() > 1) sa = sa.unsqueeze(-1);
  const at::Tensor scale =
      sa * required(node, in, 4).to(at::kDouble) / required(node, in, 6).to(at::kDouble);
  const at::Tensor& zero = required(node, in, 7);
  return {codes(node, product * scale, widened(zero), zero.scalar_type())};
}

// One parameter an output channel, for weights [M, ..] (`at_front`) or outputs [N, M, ..].
at::Tensor of_channels(const at::Tensor& parameter, int64_t rank, bool at_front) {
  const at::Tensor wide = parameter.to(at::kDouble);
  if (wide.numel() == 1) return wide.reshape({});
  std::vector<int64_t> shape(static_cast<size_t>(rank), 1);
  shape[at_front ? 0 : 1] = wide.numel();
  return wide.reshape(shape);
}

// A product of integer codes, as Conv computes it; the padding holds the zero point, that is 0
// here.
at::Tensor integer_conv(const Node& node, const at::Tensor& x, const at::Tensor& w) {
  Window window = window_of(node, x, {w.sizes().begin() + 2, w.sizes().end()});
  const std::vector<int64_t> none(window.kernel.size(), 0);
  const at::Tensor padded = at::constant_pad_nd(x, pad_argument(window.pad_begin, window.pad_end));
  return at::convolution(padded, w, {}, window.strides, none, window.dilations, false, none,
                         node.attrs.integer("group", 1));
}

at::Tensor centred_weight(const Node& node, Inputs in, size_t weight, size_t zero) {
  const at::Tensor w = required(node, in, weight).to(at::kDouble);
  if (w.dim() < 3)
    malformed(node, "expected a weight of rank 3 or more, got " + to_string(w.sizes()));
  return present(in, zero) ? w - of_channels(in[zero], w.dim(), true) : w;
}

Tensors conv_integer(const Node& node, Inputs in) {
  const at::Tensor x = centred(node, in, 0, 2, false);
  return {at::round(integer_conv(node, x, centred_weight(node, in, 1, 3))).to(at::kInt)};
}

// Inputs x, sx, zx, w, sw, zw, sy, zy, bias (int32, of scale sx sw).
Tensors qlinear_conv(const Node& node, Inputs in) {
  const at::Tensor x = centred(node, in, 0, 2, false);
  at::Tensor sums = at::round(integer_conv(node, x, centred_weight(node, in, 3, 5)));
  if (present(in, 8)) sums = sums + of_channels(in[8], x.dim(), false);
  const at::Tensor scale = required(node, in, 1).to(at::kDouble) *
                           of_channels(required(node, in, 4), x.dim(), false) /
                           required(node, in, 6).to(at::kDouble);
  const at::Tensor& zero = required(node, in, 7);
  return {codes(node, sums * scale, widened(zero), zero.scalar_type())};
}

}  // namespace

OpFunction quantize_op(OpKind op) {
  switch (op) {
    case OpKind::kQuantizeLinear: return quantize_linear;
    case OpKind::kDequantizeLinear: return dequantize_linear;
    case OpKind::kDynamicQuantizeLinear: return dynamic_quantize_linear;
    case OpKind::kQLinearMatMul: return qlinear_matmul;
    case OpKind::kQLinearConv: return qlinear_conv;
    case OpKind::kConvInteger: return conv_integer;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
