// Normalisations and softmax.
#include <cmath>

#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

int64_t axis_of(const Node& node, const at::Tensor& x, int64_t fallback) {
  return normal_axis(node, node.attrs.integer("axis", fallback), x.dim());
}

std::vector<int64_t> axes_from(int64_t axis, int64_t rank) {
  std::vector<int64_t> axes;
  for (int64_t i = axis; i < rank; ++i) axes.push_back(i);
  return axes;
}

// Over the axes from `axis` on. Outputs Y, Mean, InvStdDev. gamma and beta broadcast to x.
Tensors layer_norm(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const at::Tensor gamma = optional(in, 1), beta = optional(in, 2);
  const int64_t axis = axis_of(node, x, -1);
  const double epsilon = node.attrs.real("epsilon", 1e-5F);
  const auto normalized = x.sizes().slice(static_cast<size_t>(axis));
  const bool plain = (!gamma.defined() || gamma.sizes() == normalized) &&
                     (!beta.defined() || beta.sizes() == normalized);
  if (plain) {
    const auto [y, mean, inverse] = at::native_layer_norm(x, normalized, gamma, beta, epsilon);
    if (node.outputs.size() < 2) return {y};
    return {y, mean, inverse};
  }
  const auto axes = axes_from(axis, x.dim());
  const at::Tensor mean = x.mean(axes, true), centred = x - mean;
  const at::Tensor inverse = at::rsqrt(centred.square().mean(axes, true) + epsilon);
  at::Tensor y = centred * inverse;
  if (gamma.defined()) y = y * gamma;
  if (beta.defined()) y = y + beta;
  return {y, mean, inverse};
}

Tensors rms_norm(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const auto axes = axes_from(axis_of(node, x, -1), x.dim());
  const double epsilon = node.attrs.real("epsilon", 1e-5F);
  at::Tensor y = x * at::rsqrt(x.square().mean(axes, true) + epsilon);
  if (present(in, 1)) y = y * in[1];
  if (present(in, 2)) y = y + in[2];
  return {y};
}

// A parameter of one value a channel, shaped to broadcast along axis 1 of x.
at::Tensor along_channels(const at::Tensor& parameter, const at::Tensor& x) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[1] = parameter.numel();
  return parameter.reshape(shape);
}

// Inputs X, scale, B, mean, var; in training mode also the running statistics come out.
Tensors batch_norm(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  if (x.dim() < 2) malformed(node, "expected rank 2 or more, got " + to_string(x.sizes()));
  at::Tensor mean = required(node, in, 3), variance = required(node, in, 4);
  const double epsilon = node.attrs.real("epsilon", 1e-5F);
  Tensors running;
  if (node.attrs.integer("training_mode", 0) != 0) {
    std::vector<int64_t> axes = axes_from(2, x.dim());
    axes.insert(axes.begin(), 0);
    const double momentum = node.attrs.real("momentum", 0.9F);
    const at::Tensor batch_mean = x.mean(axes), batch_variance = x.var(axes, false);
    running = {mean * momentum + batch_mean * (1 - momentum),
               variance * momentum + batch_variance * (1 - momentum)};
    mean = batch_mean;
    variance = batch_variance;
  }
  const at::Tensor inverse = at::rsqrt(variance + epsilon);
  at::Tensor y =
      (x - along_channels(mean, x)) * along_channels(inverse * required(node, in, 1), x) +
      along_channels(required(node, in, 2), x);
  Tensors outputs = {y.to(x.scalar_type())};
  outputs.insert(outputs.end(), running.begin(), running.end());
  return outputs;
}

Tensors group_norm(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t groups = node.attrs.integer("num_groups", 1);
  if (x.dim() < 2 || groups < 1 || x.size(1) % groups != 0) {
    malformed(node, "channels of " + to_string(x.sizes()) + " do not divide into groups");
  }
  at::Tensor gamma = required(node, in, 1), beta = required(node, in, 2);
  if (gamma.numel() == groups && groups != x.size(1)) {  // one a group, as opset 18 had it
    gamma = gamma.repeat_interleave(x.size(1) / groups);
    beta = beta.repeat_interleave(x.size(1) / groups);
  }
  return {at::group_norm(x, groups, gamma, beta, node.attrs.real("epsilon", 1e-5F))};
}

Tensors instance_norm(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const auto axes = axes_from(2, x.dim());
  const at::Tensor centred = x - x.mean(axes, true);
  const at::Tensor inverse =
      at::rsqrt(centred.square().mean(axes, true) + node.attrs.real("epsilon", 1e-5F));
  return {centred * inverse * along_channels(required(node, in, 1), x) +
          along_channels(required(node, in, 2), x)};
}

Tensors lp_norm(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t axis = axis_of(node, x, -1);
  const at::Tensor norm = at::norm(x, at::Scalar(node.attrs.integer("p", 2)), {axis}, true);
  const float epsilon = node.attrs.real("epsilon", 0.0F);
  if (epsilon > 0.0F) return {x / norm.clamp_min(epsilon)};
  return {at::where(norm == 0, at::zeros_like(x), x / norm)};
}

Tensors mean_variance_norm(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const auto axes = normal_axes(node, node.attrs.integers("axes", {0, 2, 3}), x.dim());
  const at::Tensor centred = x - x.mean(axes, true);
  return {centred / (at::sqrt(centred.square().mean(axes, true)) + 1e-9)};
}

// The window of `size` channels reaches floor((size - 1)/2) down and ceil((size - 1)/2) up.
Tensors lrn(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t size = node.attrs.integer("size", 1);
  if (size < 1 || x.dim() < 2) malformed(node, "expected size >= 1 and rank >= 2");
  const double alpha = node.attrs.real("alpha", 1e-4F), beta = node.attrs.real("beta", 0.75F);
  const at::Tensor square = x.square().flatten(2).unsqueeze(-1);  // [N, C, M, 1]
  const at::Tensor channels_last = square.permute({0, 2, 3, 1}).squeeze(2);  // [N, M, C]
  const at::Tensor padded =
      at::constant_pad_nd(channels_last, {(size - 1) / 2, size - 1 - (size - 1) / 2});
  const at::Tensor sums = padded.unfold(-1, size, 1).sum(-1).transpose(1, 2).reshape(x.sizes());
  const double bias = node.attrs.real("bias", 1.0F);
  return {x / at::pow(sums * (alpha / static_cast<double>(size)) + bias, beta)};
}

Tensors softmax(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  return {at::softmax(x, axis_of(node, x, -1))};
}

Tensors log_softmax(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  return {at::log_softmax(x, axis_of(node, x, -1))};
}

Tensors hardmax(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t axis = axis_of(node, x, -1);
  return {at::zeros_like(x).scatter(axis, x.argmax(axis, true), 1.0)};
}

}  // namespace

OpFunction norm_op(OpKind op) {
  switch (op) {
    case OpKind::kLayerNorm: return layer_norm;
    case OpKind::kRmsNorm: return rms_norm;
    case OpKind::kBatchNorm: return batch_norm;
    case OpKind::kGroupNorm: return group_norm;
    case OpKind::kInstanceNorm: return instance_norm;
    case OpKind::kLpNorm: return lp_norm;
    case OpKind::kMeanVarianceNorm: return mean_variance_norm;
    case OpKind::kLrn: return lrn;
    case OpKind::kSoftmax: return softmax;
    case OpKind::kLogSoftmax: return log_softmax;
    case OpKind::kHardmax: return hardmax;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
