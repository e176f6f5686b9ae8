// Attention: the composite of graph.h, ONNX Attention (opset 23), and rotary embedding.
#include <cmath>
#include <limits>

#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// [.., T, H*d] -> [.., H, T, d], a view.
at::Tensor split_heads(const Node& node, const at::Tensor& x, int64_t heads) {
  if (x.dim() < 2 || heads < 1 || x.size(-1) % heads != 0) {
    malformed(node,
              "expected [.., T, " + std::to_string(heads) + " * d], got " + to_string(x.sizes()));
  }
  return x.unflatten(-1, {heads, x.size(-1) / heads}).transpose(-3, -2);
}

// Key and value heads, each used by `group` query heads in a row.
at::Tensor repeat_heads(const at::Tensor& x, int64_t group) {
  return group == 1 ? x : x.repeat_interleave(group, -3);
}

// Query i sees keys 0 .. i + offset.
void mask_future(at::Tensor& scores, int64_t offset) {
  const at::Tensor visible = at::ones({scores.size(-2), scores.size(-1)},
                                      scores.options().dtype(at::kBool)).tril(offset);
  scores = scores.masked_fill(visible.logical_not(), kMinusInfinity);
}

at::Tensor masked(const at::Tensor& scores, const at::Tensor& mask) {
  if (mask.scalar_type() == at::kBool)
    return scores.masked_fill(mask.logical_not(), kMinusInfinity);
  return scores + mask.to(scores.scalar_type());
}

// A row of -inf alone has no probabilities: zeros, as ONNX 23 has it.
at::Tensor softmax_or_zero(const at::Tensor& scores) {
  const at::Tensor p = at::softmax(scores, -1);
  return at::where(scores.amax(-1, true) == kMinusInfinity, at::zeros_like(p), p);
}

struct Heads {
  at::Tensor q, k, v;   // [.., H, T, d]
  bool packed = false;  // given as [B, T, H*d]
};

Heads heads_of(const Node& node, Inputs in) {
  Heads h{required(node, in, 0), required(node, in, 1), required(node, in, 2)};
  h.packed = h.q.dim() == 3;
  if (h.packed) {
    const int64_t heads = node.attrs.integer("q_num_heads", 0);
    const int64_t kv_heads = node.attrs.integer("kv_num_heads", 0);
    h.q = split_heads(node, h.q, heads);
    h.k = split_heads(node, h.k, kv_heads);
    h.v = split_heads(node, h.v, kv_heads);
  }
  return h;
}

// A mask shorter than the keys hides the rest.
at::Tensor pad_mask(const at::Tensor& mask, int64_t keys) {
  const int64_t missing = keys - mask.size(-1);
  if (missing <= 0) return mask;
  const bool boolean = mask.scalar_type() == at::kBool;
  return at::constant_pad_nd(mask, {0, missing},
                             boolean ? at::Scalar(0) : at::Scalar(kMinusInfinity));
}

// Inputs: Q, K, V, attn_mask, past_key, past_value. Outputs: Y, present_key, present_value, scores
// after the step that qk_matmul_output_mode names.
Tensors onnx_attention(const Node& node, Inputs in) {
  Heads h = heads_of(node, in);
  const int64_t past = present(in, 4) ? in[4].size(-2) : 0;
  if (present(in, 4)) h.k = at::cat({in[4], h.k}, -2);
  if (present(in, 5)) h.v = at::cat({in[5], h.v}, -2);
  const Tensors kv = {h.k, h.v};
  const int64_t group = h.q.size(-3) / std::max<int64_t>(1, h.k.size(-3));
  const float fallback = 1.0F / std::sqrt(static_cast<float>(h.q.size(-1)));
  const float scale = node.attrs.real("scale", fallback),
              softcap = node.attrs.real("softcap", 0.0F);
  const double root = std::sqrt(static_cast<double>(scale));
  at::Tensor scores = at::matmul(h.q * root, repeat_heads(h.k, group).transpose(-2, -1) * root);
  const int64_t mode = node.attrs.integer("qk_matmul_output_mode", 0);
  at::Tensor shown = scores;
  if (softcap > 0.0F && mode != 1) scores = softcap * at::tanh(scores / softcap);
  if (mode == 2) shown = scores;
  if (present(in, 3)) scores = masked(scores, pad_mask(in[3], scores.size(-1)));
  if (node.attrs.integer("is_causal", 0) != 0) mask_future(scores, past);
  if (mode == 1) {
    shown = scores;
    if (softcap > 0.0F) scores = softcap * at::tanh(scores / softcap);
  }
  const at::Tensor p = softmax_or_zero(scores);
  if (mode == 3) shown = p;
  at::Tensor y = at::matmul(p, repeat_heads(h.v, group));
  if (h.packed) y = y.transpose(-3, -2).flatten(-2);
  return {y, kv[0], kv[1], shown};
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                  bool interleaved) {
  at::Tensor first, second;
  if (interleaved) {
    first = x.slice(-1, 0, std::nullopt, 2);
    second = x.slice(-1, 1, std::nullopt, 2);
  } else {
    first = x.slice(-1, 0, x.size(-1) / 2);
    second = x.slice(-1, x.size(-1) / 2);
  }
  const at::Tensor real = cos * first - sin * second, imaginary = sin * first + cos * second;
  return interleaved ? at::stack({real, imaginary}, -1).flatten(-2)
                     : at::cat({real, imaginary}, -1);
}

// x [B, H, T, d] or [B, T, H*d]; caches [P, r/2] with position_ids [B, T], or [B, T, r/2].
Tensors rotary_embedding(const Node& node, Inputs in) {
  const at::Tensor& given = required(node, in, 0);
  const bool packed = given.dim() == 3;
  const at::Tensor x =
      packed ? split_heads(node, given, node.attrs.integer("num_heads", 0)) : given;
  at::Tensor cos = required(node, in, 1), sin = required(node, in, 2);
  if (present(in, 3)) {
    const at::Tensor positions = in[3].to(at::kLong);
    cos = cos.index({positions});
    sin = sin.index({positions});
  }
  cos = cos.unsqueeze(-3);  // over the heads
  sin = sin.unsqueeze(-3);
  int64_t rotated = node.attrs.integer("rotary_embedding_dim", 0);
  if (rotated == 0) rotated = x.size(-1);
  const bool interleaved = node.attrs.integer("interleaved", 0) != 0;
  at::Tensor y = rotate(x.slice(-1, 0, rotated), cos, sin, interleaved);
  if (rotated < x.size(-1)) y = at::cat({y, x.slice(-1, rotated)}, -1);
  return {packed ? y.transpose(-3, -2).flatten(-2) : y};
}

Tensors composite(const Node& node, Inputs in) { return {multi_head_attention(node, in, {})}; }

}  // namespace

at::Tensor multi_head_attention(const Node& node, Inputs in, const ProbabilitiesHook& hook) {
  const int64_t heads = node.attrs.integer("heads", 1);
  const int64_t kv_heads = node.attrs.integer("kv_heads", heads);
  if (kv_heads < 1 || heads % kv_heads != 0) {
    malformed(node, "expected heads to be a multiple of kv_heads, got " + std::to_string(heads) +
                        " and " + std::to_string(kv_heads));
  }
  const at::Tensor q = split_heads(node, required(node, in, 0), heads);
  const at::Tensor k =
      repeat_heads(split_heads(node, required(node, in, 1), kv_heads), heads / kv_heads);
  const at::Tensor v =
      repeat_heads(split_heads(node, required(node, in, 2), kv_heads), heads / kv_heads);
  const float fallback = 1.0F / std::sqrt(static_cast<float>(q.size(-1)));
  const float scale = node.attrs.real("scale", fallback);
  at::Tensor scores = at::matmul(q, k.transpose(-2, -1));
  scores = scores.requires_grad() ? scores * scale : scores.mul_(scale);
  const std::vector<float> factors = node.attrs.reals("head_scale");
  if (!factors.empty()) {
    if (static_cast<int64_t>(factors.size()) != heads)
      malformed(node, "expected one head_scale a head, got " + std::to_string(factors.size()));
    scores = scores * at::tensor(factors).reshape({heads, 1, 1});
  }
  for (size_t i = 3; i < in.size(); ++i) {
    if (present(in, i)) scores = masked(scores, in[i]);
  }
  if (node.attrs.integer("causal", 0) != 0) mask_future(scores, scores.size(-1) - scores.size(-2));
  at::Tensor p = at::softmax(scores, -1);
  if (hook) p = hook(p);
  return at::matmul(p, v).transpose(-3, -2).flatten(-2);
}

OpFunction attention_op(OpKind op) {
  switch (op) {
    case OpKind::kMultiHeadAttention: return composite;
    case OpKind::kOnnxAttention: return onnx_attention;
    case OpKind::kRotaryEmbedding: return rotary_embedding;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
