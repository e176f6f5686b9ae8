#pragma once
// Random small vision transformers with their sites filled in, for tests of what quantizes and what
// executes them.
// The weights lie on their grids; activation ranges are guesses that fit unit-variance activations.
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "repquant/core/format/uniform.h"
#include "repquant/graph/quant_plan.h"

namespace repquant::testing {

enum class Softmax { kTable, kTable2, kParity, kUniform, kRow };

struct TinyVit {
  uint32_t seed = 1;
  int weight_bits = 4, activation_bits = 4;
  bool symmetric_weights = false, symmetric_activations = false;
  bool log_fc2 = true;      // fc2 input: log levels, else uniform
  bool pre_gelu = false;    // 8-bit site before GELU
  bool per_head = false;    // q, k, v symmetric with a scale a head
  bool rms_norm = false;    // with beta
  bool fused_qkv = true;    // one linear and a split
  bool class_token = true;  // else mean over tokens
  Softmax softmax = Softmax::kTable;
  int blocks = 2, embed = 32, heads = 2, mlp = 64, image = 8, patch = 4, channels = 3, classes = 10;

  int tokens() const { return (image / patch) * (image / patch) + (class_token ? 1 : 0); }
};

struct Model {
  Graph graph;
  QuantPlan plan;
  TinyVit options;
};

class TinyVitBuilder {
 public:
  explicit TinyVitBuilder(const TinyVit& options) : o_(options), random_(options.seed) {}

  Model build() {
    ValueId x = embed();
    for (int i = 0; i < o_.blocks; ++i) x = block(x, "blocks." + std::to_string(i));
    x = o_.class_token ? select(norm(x, "norm")) : norm(mean(x), "norm");
    const ValueId y = linear(x, o_.embed, o_.classes, "head", {o_.classes}, uniform(4.0f));
    graph_.outputs = {y};
    graph_.name = "tiny_vit";
    return {std::move(graph_), std::move(plan_), o_};
  }

 private:
  std::vector<float> normal(int64_t count, float mean, float deviation) {
    std::normal_distribution<float> distribution(mean, deviation);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = distribution(random_);
    return values;
  }
  ValueId constant(const std::string& name, Shape shape, const std::vector<float>& values) {
    return graph_.add_constant(name, Tensor::of<float>(std::move(shape), values));
  }
  ValueId value(const std::string& name, const Shape& item) {
    Value v;
    v.name = name;
    v.shape.emplace();
    v.shape->push_back({-1, "batch"});
    for (const int64_t d : item) v.shape->push_back({d, {}});
    return graph_.add_value(std::move(v));
  }
  ValueId node(OpKind op, const std::string& name, std::vector<ValueId> inputs, const Shape& item,
               Attrs attrs = {}) {
    Node n{op, name, std::move(inputs), {value(name + ".out", item)}, std::move(attrs)};
    const ValueId out = n.outputs[0];
    last_ = graph_.add_node(std::move(n));
    return out;
  }
  ValueId integers(const std::string& name, const std::vector<int64_t>& values) {
    return graph_.add_constant(name,
                               Tensor::of<int64_t>({static_cast<int64_t>(values.size())}, values));
  }

  // ---- sites
  QParams uniform(float reach, int bits = 0) {
    const int b = bits != 0 ? bits : o_.activation_bits;
    QParams params;
    params.spec.bits = b;
    if (o_.symmetric_activations) {
      params.spec.format = Uniform{true, true, true};
      params.scale = {symmetric_scale(static_cast<double>(reach), b, true)};
      params.zero_point = {0};
      return params;
    }
    const float jitter = std::uniform_real_distribution<float>(0.8f, 1.2f)(random_);
    const UniformParams u = uniform_from_range(-reach * jitter, reach, b, true);
    params.spec.format = Uniform{};
    params.scale = {u.scale};
    params.zero_point = {u.zero};
    return params;
  }
  QParams per_head(float reach) {
    QParams params;
    params.spec = {o_.activation_bits, Uniform{true, true, true}, PerHead{o_.heads}, {}};
    for (int h = 0; h < o_.heads; ++h) {
      const double wide = static_cast<double>(reach) * (1.0 + 0.3 * h);
      params.scale.push_back(symmetric_scale(wide, o_.activation_bits, true));
      params.zero_point.push_back(0);
    }
    return params;
  }
  QParams log_params(float scale, double base, double shift, int table_bits) {
    QParams params;
    params.spec.bits = o_.activation_bits;
    params.spec.format = Log{base, shift, table_bits, false};
    params.scale = {scale};
    params.zero_point = {0};
    return params;
  }
  QParams probabilities() {
    QParams params;
    switch (o_.softmax) {
      case Softmax::kTable:
        return log_params(0.6f, 2.0, 0.0, 8);
      case Softmax::kTable2:
        return log_params(0.6f, 1.5, 0.0, 16);
      case Softmax::kParity:
        return log_params(0.6f, 2.0, 0.0, 0);
      case Softmax::kUniform:
        params.spec.bits = std::min(o_.activation_bits, 7);
        break;
      case Softmax::kRow:
        params.spec.bits = 8;
        break;
    }
    params.scale = {0.7f / static_cast<float>((1 << params.spec.bits) - 1)};
    params.zero_point = {0};
    return params;
  }
  void activation_site(int input, QParams params) {
    plan_.set({last_, input}, {Role::kActivation, std::move(params), "test"});
  }

  // Weights of deviation 1/sqrt(K), put on their grid row by row.
  ValueId weight(int64_t n, int64_t k, const Shape& shape, int bits, const std::string& name,
                 QParams* out) {
    std::vector<float> w = normal(n * k, 0.0f, 1.0f / std::sqrt(static_cast<float>(k)));
    QParams params;
    params.spec = {bits, Uniform{o_.symmetric_weights, true, true}, PerChannel{0}, {}};
    const CodeRange range = code_range(bits, std::get<Uniform>(params.spec.format));
    for (int64_t i = 0; i < n; ++i) {
      float* row = w.data() + i * k;
      const auto [low, high] = std::minmax_element(row, row + k);
      UniformParams u = uniform_from_range(*low, *high, bits, true);
      if (o_.symmetric_weights) {
        const double most =
            std::max(std::fabs(static_cast<double>(*low)), std::fabs(static_cast<double>(*high)));
        u = {symmetric_scale(most, bits, true), 0};
      }
      params.scale.push_back(u.scale);
      params.zero_point.push_back(u.zero);
      for (int64_t j = 0; j < k; ++j) {
        row[j] = dequantize_uniform(
            quantize_uniform(row[j], inverse_scale(u.scale), u.zero, range.lo, range.hi), u.scale,
            u.zero);
      }
    }
    *out = params;
    return constant(name, shape, w);
  }

  // ---- layers
  ValueId linear(ValueId x, int64_t k, int64_t n, const std::string& name, const Shape& item,
                 QParams input) {
    QParams params;
    const ValueId w = weight(n, k, {n, k}, o_.weight_bits, name + ".weight", &params);
    const ValueId b = constant(name + ".bias", {n}, normal(n, 0.0f, 0.2f));
    const ValueId y = node(OpKind::kLinear, name, {x, w, b}, item);
    activation_site(0, std::move(input));
    plan_.set({last_, 1}, {Role::kWeight, params, "test"});
    return y;
  }
  ValueId norm(ValueId x, const std::string& name) {
    const Shape item = item_of(x);
    const ValueId g = constant(name + ".weight", {o_.embed}, normal(o_.embed, 1.0f, 0.2f));
    const ValueId b = constant(name + ".bias", {o_.embed}, normal(o_.embed, 0.0f, 0.1f));
    Attrs attrs;
    attrs.set("epsilon", 1e-6f);
    return node(o_.rms_norm ? OpKind::kRmsNorm : OpKind::kLayerNorm, name, {x, g, b}, item, attrs);
  }
  Shape item_of(ValueId x) const {
    Shape item;
    const SymbolicShape& shape = *graph_.value(x).shape;
    for (size_t i = 1; i < shape.size(); ++i) item.push_back(shape[i].size);
    return item;
  }
  ValueId embed() {
    const ValueId image = value("input", {o_.channels, o_.image, o_.image});
    graph_.inputs = {image};
    const int64_t side = o_.image / o_.patch, patches = side * side, e = o_.embed;
    QParams params;
    const int64_t k = o_.channels * o_.patch * o_.patch;
    const ValueId w =
        weight(e, k, {e, o_.channels, o_.patch, o_.patch}, 8, "patch_embed.weight", &params);
    const ValueId b = constant("patch_embed.bias", {e}, normal(e, 0.0f, 0.1f));
    Attrs attrs;
    attrs.set("strides", std::vector<int64_t>{o_.patch, o_.patch});
    attrs.set("kernel_shape", std::vector<int64_t>{o_.patch, o_.patch});
    ValueId x = node(OpKind::kConv, "patch_embed", {image, w, b}, {e, side, side}, attrs);
    activation_site(0, uniform(2.5f, 8));
    plan_.set({last_, 1}, {Role::kWeight, params, "test"});
    x = node(OpKind::kReshape, "flatten", {x, integers("flatten.shape", {0, e, patches})},
             {e, patches});
    Attrs perm;
    perm.set("perm", std::vector<int64_t>{0, 2, 1});
    x = node(OpKind::kTranspose, "to_tokens", {x}, {patches, e}, perm);
    if (o_.class_token) {
      const ValueId token = constant("cls_token", {1, 1, e}, normal(e, 0.0f, 0.5f));
      const ValueId target = integers("expand.shape", {-1, 1, e});
      const ValueId expanded = node(OpKind::kExpand, "expand", {token, target}, {1, e});
      Attrs axis;
      axis.set("axis", int64_t{1});
      x = node(OpKind::kConcat, "cat", {expanded, x}, {patches + 1, e}, axis);
    }
    const int64_t t = o_.tokens();
    const ValueId position = constant("pos_embed", {1, t, e}, normal(t * e, 0.0f, 0.3f));
    return node(OpKind::kAdd, "add_pos", {x, position}, {t, e});
  }
  ValueId attention(ValueId x, const std::string& name) {
    const int64_t t = o_.tokens(), e = o_.embed;
    std::vector<ValueId> qkv;
    if (o_.fused_qkv) {
      const ValueId all = linear(x, e, 3 * e, name + ".qkv", {t, 3 * e}, norm_site_);
      Node n{OpKind::kSplit, name + ".split", {all}, {}, {}};
      n.attrs.set("axis", int64_t{-1});
      for (const char* part : {".q", ".k", ".v"}) n.outputs.push_back(value(name + part, {t, e}));
      qkv = n.outputs;
      graph_.add_node(std::move(n));
    } else {
      for (const char* part : {".q", ".k", ".v"}) {
        qkv.push_back(linear(x, e, e, name + part, {t, e}, norm_site_));
      }
    }
    Attrs attrs;
    attrs.set("heads", int64_t{o_.heads});
    attrs.set("kv_heads", int64_t{o_.heads});
    attrs.set("scale", 1.0f / std::sqrt(static_cast<float>(e / o_.heads)));
    const ValueId y = node(OpKind::kMultiHeadAttention, name + ".mha", qkv, {t, e}, attrs);
    for (int i = 0; i < 3; ++i) activation_site(i, o_.per_head ? per_head(3.0f) : uniform(3.0f));
    activation_site(kProbabilities, probabilities());
    return y;
  }
  ValueId block(ValueId x, const std::string& name) {
    const int64_t t = o_.tokens(), e = o_.embed, hidden = o_.mlp;
    norm_site_ = uniform(3.5f);
    ValueId y = attention(norm(x, name + ".norm1"), name + ".attn");
    y = linear(y, e, e, name + ".attn.proj", {t, e}, uniform(2.0f));
    x = node(OpKind::kAdd, name + ".add1", {x, y}, {t, e});
    y = norm(x, name + ".norm2");
    y = linear(y, e, hidden, name + ".mlp.fc1", {t, hidden}, uniform(3.5f));
    y = node(OpKind::kGelu, name + ".mlp.gelu", {y}, {t, hidden});
    if (o_.pre_gelu) activation_site(0, uniform(4.0f, 8));
    y = linear(y, hidden, e, name + ".mlp.fc2", {t, e},
               o_.log_fc2 ? log_params(3.0f, 37.0 / 12.0, 0.16997124, 8) : uniform(2.5f));
    return node(OpKind::kAdd, name + ".add2", {y, x}, {t, e});
  }
  ValueId select(ValueId x) {
    Attrs axis;
    axis.set("axis", int64_t{1});
    const ValueId index = graph_.add_constant("select.index", Tensor::scalar<int64_t>(0));
    return node(OpKind::kGather, "select", {x, index}, {o_.embed}, axis);
  }
  ValueId mean(ValueId x) {
    Attrs attrs;
    attrs.set("axes", std::vector<int64_t>{1});
    attrs.set("keepdims", int64_t{0});
    return node(OpKind::kReduceMean, "mean", {x}, {o_.embed}, attrs);
  }

  TinyVit o_;
  std::mt19937 random_;
  Graph graph_;
  QuantPlan plan_;
  NodeId last_ = -1;
  QParams norm_site_;
};

inline Model tiny_vit(const TinyVit& options) { return TinyVitBuilder(options).build(); }

// Every interesting combination once.
inline std::vector<TinyVit> tiny_vit_variants() {
  std::vector<TinyVit> all;
  const auto add = [&](auto change) {
    TinyVit v;
    v.seed = static_cast<uint32_t>(all.size()) + 1;
    change(v);
    all.push_back(v);
  };
  add([](TinyVit&) {});
  for (int bits = 2; bits <= 8; ++bits) {
    add([bits](TinyVit& v) {
      v.weight_bits = bits;
      v.activation_bits = 10 - bits;
      v.symmetric_weights = bits % 2 == 1;
      v.log_fc2 = bits % 2 == 0;
    });
  }
  add([](TinyVit& v) { v.pre_gelu = true; });
  add([](TinyVit& v) {
    v.pre_gelu = true;
    v.log_fc2 = false;
    v.symmetric_activations = true;
  });
  add([](TinyVit& v) {
    v.per_head = true;
    v.symmetric_weights = true;
    v.activation_bits = 6;
  });
  add([](TinyVit& v) {
    v.rms_norm = true;
    v.softmax = Softmax::kTable2;
    v.activation_bits = 5;
  });
  add([](TinyVit& v) {
    v.softmax = Softmax::kParity;
    v.fused_qkv = false;
  });
  add([](TinyVit& v) {
    v.softmax = Softmax::kParity;
    v.activation_bits = 6;
    v.symmetric_activations = true;
  });
  add([](TinyVit& v) {
    v.softmax = Softmax::kUniform;
    v.class_token = false;
    v.activation_bits = 6;
  });
  add([](TinyVit& v) {
    v.softmax = Softmax::kRow;
    v.weight_bits = 8;
    v.activation_bits = 8;
    v.log_fc2 = false;
  });
  return all;
}

// [batch, channels, image, image], standard normal.
inline Tensor random_images(const TinyVit& options, int64_t batch, uint32_t seed) {
  Tensor images(DType::kF32, {batch, options.channels, options.image, options.image});
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  for (float& v : images.as<float>()) v = distribution(random);
  return images;
}

}  // namespace repquant::testing
