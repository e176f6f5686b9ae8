// multi_head_attention with integer products.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/format/log.h"
#include "repquant/core/format/uniform.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {
namespace {

// How the probabilities are coded: what the step says, and the real value of one level.
struct Probabilities {
  std::string codes, pv;
  double unit = 1.0;
  LogTable table;
  float inverse = 0.0f;
  int64_t highest = 0;
};

Probabilities log_probabilities(const QParams& params, const Log& log, const std::string& subject) {
  if (log.compat) {
    throw Error(
        ErrorCode::kUnsupported,
        "lower: " + subject + ": compat log codes have 2^b + 1 levels and are simulation only",
        "quantize without compat, or use eval --simulate");
  }
  if (log.shift != 0.0)
    throw Error(ErrorCode::kUnsupported, "lower: " + subject + ": expected no shift");
  if (log.table_bits == 0 && log.base != 2.0) {
    throw Error(ErrorCode::kUnsupported, "lower: " + subject + ": exact powers run for B = 2 only",
                "use table_bits 8 or 16");
  }
  Probabilities result;
  result.codes = "log";
  const double scale = params.scale[0];
  result.table = log_table(scale, params.spec.bits, log);
  result.pv = log.table_bits == 8 ? "table" : log.table_bits == 16 ? "table2" : "parity";
  result.unit = log.table_bits == 8    ? scale / kLogTable8One
                : log.table_bits == 16 ? scale / kLogTable16One
                                       : scale;
  return result;
}

Probabilities probabilities(const QParams& params, const std::string& subject) {
  if (params.scale.size() != 1 || !(params.scale[0] > 0.0f)) {
    throw Error(
        ErrorCode::kUnsupported,
        "lower: " + subject + ": expected one positive scale, got " + to_string(params.spec));
  }
  if (const auto* log = std::get_if<Log>(&params.spec.format))
    return log_probabilities(params, *log, subject);
  const auto* uniform = std::get_if<Uniform>(&params.spec.format);
  if (uniform == nullptr || (!params.zero_point.empty() && params.zero_point[0] != 0)) {
    throw Error(ErrorCode::kUnsupported, "lower: " + subject +
                                             ": expected log codes, or uniform ones with "
                                             "zero point 0, got " +
                                             to_string(params.spec));
  }
  Probabilities result;
  if (params.spec.bits == 8) {  // the runtime contract's default at 8 bits: exact in mass, no scale
    result.codes = result.pv = "row";
    return result;
  }
  result.codes = "uniform";
  result.pv = "plain";
  result.unit = params.scale[0];
  result.inverse = inverse_scale(params.scale[0]);
  result.highest = code_range(params.spec.bits, *uniform).hi;
  return result;
}

// Exporters write at most this for minus infinity; and where one window adds so much less than
// another, the key is left out in the first: exp(-50) is no code of any format.
constexpr float kLeftOut = -1e4f, kWindowGap = 50.0f;

// What is added to scores, split in numbers and keys left out.
struct Terms {
  Tensor bias;  // [1 or W, 1 or heads, T, T]
  Tensor mask;  // [1 or W, T, T]
  bool biased = false, masked = false;
};

// bias [W, H, T, T] as one bias for all windows and a mask for each; nullopt: windows differ by
// more than keys left out.
std::optional<Terms> shared_bias(const Tensor& all) {
  const Shape& s = all.shape();
  const int64_t windows = s[0], heads = s[1], cells = s[2] * s[3];
  Terms terms{Tensor(DType::kF32, {1, heads, s[2], s[3]}),
              Tensor(DType::kU8, {windows, s[2], s[3]}), false, false};
  const auto values = all.as<float>();
  const auto value = [&](int64_t w, int64_t h, int64_t i) {
    return values[static_cast<size_t>((w * heads + h) * cells + i)];
  };
  for (int64_t i = 0; i < cells; ++i) {
    for (int64_t h = 0; h < heads; ++h) {
      float most = value(0, h, i);
      for (int64_t w = 1; w < windows; ++w) most = std::max(most, value(w, h, i));
      const bool never = most <= kLeftOut;
      terms.bias.as<float>()[static_cast<size_t>(h * cells + i)] = never ? 0.0f : most;
      terms.biased = terms.biased || (!never && most != 0.0f);
      for (int64_t w = 0; w < windows; ++w) {
        const bool kept = !never && value(w, h, i) == most;
        if (!kept && !never && !(value(w, h, i) <= most - kWindowGap)) return std::nullopt;
        uint8_t& keep = terms.mask.as<uint8_t>()[static_cast<size_t>(w * cells + i)];
        if (h > 0 && keep != static_cast<uint8_t>(kept)) return std::nullopt;  // heads differ
        keep = kept;
        terms.masked = terms.masked || !kept;
      }
    }
  }
  return terms;
}

Terms split_terms(Tensor all) {
  if (auto shared = shared_bias(all)) return std::move(*shared);
  Terms terms{std::move(all), {}, true, false};
  for (float& v : terms.bias.as<float>()) v = std::max(v, 10 * kLeftOut);  // finite
  return terms;
}

}  // namespace

// The constant added to scores as [1 or W, 1 or heads, T, T].
Tensor Lowering::score_constant(const Node& node, int64_t windows, int64_t heads,
                                int64_t tokens) const {
  const bool given = node.inputs.size() > 3 && node.inputs[3] != kNoValue;
  Tensor found = given ? constant(node.inputs[3], node, "mask or bias of scores")
                       : Tensor::of<float>({1}, {0.0f});
  if (found.dtype() != DType::kF32) refuse(node, "expected a mask or bias in F32");
  Shape shape = found.shape();
  if (shape.size() < 4) shape.insert(shape.begin(), 4 - shape.size(), 1);
  while (shape.size() > 4) {
    shape[1] *= shape[0];
    shape.erase(shape.begin());
  }
  const auto fits = [](int64_t size, int64_t whole) { return size == 1 || size == whole; };
  if (!fits(shape[0], windows) || !fits(shape[1], heads) || !fits(shape[2], tokens) ||
      !fits(shape[3], tokens)) {
    refuse(node, fmt::format("mask or bias {} does not fit {} windows, {} heads, {} tokens",
                             to_string(found.shape()), windows, heads, tokens));
  }
  const bool causal = node.attrs.integer("causal", 0) != 0;
  Tensor all(DType::kF32, {shape[0], shape[1], tokens, tokens});
  const auto from = found.as<float>();
  for (int64_t i = 0; i < all.size(); ++i) {
    const int64_t key = i % tokens, query = i / tokens % tokens, plane = i / tokens / tokens;
    const int64_t row = plane * shape[2] + (shape[2] == 1 ? 0 : query);
    const float v = from[static_cast<size_t>(row * shape[3] + (shape[3] == 1 ? 0 : key))];
    all.as<float>()[static_cast<size_t>(i)] =
        causal && key > query ? -std::numeric_limits<float>::infinity() : v;
  }
  return all;
}

void Lowering::add_score_terms(const Node& node, Step& step, int64_t windows, int64_t heads,
                               int64_t tokens) {
  const bool given = node.inputs.size() > 3 && node.inputs[3] != kNoValue;
  if (!given && node.attrs.integer("causal", 0) == 0) return;
  Terms terms = split_terms(score_constant(node, windows, heads, tokens));
  if (terms.biased) builder_.add_tensor(step, "bias", std::move(terms.bias));
  if (terms.masked) builder_.add_tensor(step, "mask", std::move(terms.mask));
}

void Lowering::emit_attention(NodeId id) {
  const Node& node = graph_.node(id);
  const int64_t heads = node.attrs.integer("heads", 1);
  const Shape item = at(node.inputs.at(0)).item;
  if (node.attrs.integer("kv_heads", heads) != heads)
    refuse(node, "grouped heads are not built yet");
  for (size_t i = 1; i < 3; ++i) {
    if (at(node.inputs.at(i)).item != item) refuse(node, "expected q, k and v of one shape");
  }
  if (item.size() < 2 || heads < 1 || item.back() % heads != 0) {
    refuse(node, fmt::format("expected items [tokens, heads*d] or [windows, tokens, heads*d], got "
                             "{} with {} heads",
                             to_string(item), heads));
  }
  const int64_t tokens = item[item.size() - 2];
  const int64_t windows = element_count(item) / (tokens * item.back());
  Shape shape{tokens, item.back()};
  if (item.size() > 2) shape.insert(shape.begin(), windows);
  CodeFormat format[3];
  std::vector<int> in;
  for (int i = 0; i < 3; ++i) {
    format[i] = site_format(id, i);
    const bool fits =
        format[i].scale.size() == 1 || static_cast<int64_t>(format[i].scale.size()) == heads;
    if (format[i].kind != CodeFormat::Kind::kUniform || !fits) {
      refuse(node, fmt::format("input {}: expected uniform codes, per tensor or per head", i));
    }
    const ValueId operand = node.inputs[static_cast<size_t>(i)];
    in.push_back(materialize(stored_codes(operand, format[i]), shape,
                             graph_.value(operand).name + ".codes"));
  }
  const Probabilities p =
      probabilities(site(id, kProbabilities).params, quoted(node) + " probabilities");
  const Demand wanted = demand(node.outputs[0]);
  const CodeFormat* out_format = wanted.only_codes();
  if (out_format != nullptr && out_format->per_head()) out_format = nullptr;
  const std::string& name = graph_.value(node.outputs[0]).name;
  const int out = out_format != nullptr
                      ? builder_.add_buffer(name, DType::kU8, shape, out_format->bits)
                      : builder_.add_real(name, shape);

  Step& step = builder_.add_step("attention", node.name, in, out);
  step.ints = {
      {"heads", heads}, {"zq", format[0].zero}, {"zk", format[1].zero}, {"zv", format[2].zero}};
  step.strings = {{"codes", p.codes}, {"pv", p.pv}};
  const double head_width = static_cast<double>(item.back() / heads);
  const double scale = node.attrs.real("scale", static_cast<float>(1.0 / std::sqrt(head_width)));
  const std::vector<float> factors = node.attrs.reals("head_scale");
  if (!factors.empty() && static_cast<int64_t>(factors.size()) != heads)
    refuse(node, fmt::format("expected {} factors of heads, got {}", heads, factors.size()));
  const bool per_head = format[0].per_head() || format[1].per_head() || !factors.empty();
  const size_t score_heads = per_head ? static_cast<size_t>(heads) : 1;
  std::vector<float> m, mo;
  for (size_t h = 0; h < score_heads; ++h) {
    const double factor = factors.empty() ? 1.0 : static_cast<double>(factors[h]);
    m.push_back(static_cast<float>(format[0].step(h) * format[1].step(h) * scale * factor));
  }
  const double so = out_format != nullptr ? out_format->step() : 1.0;
  for (size_t h = 0; h < format[2].scale.size(); ++h) {
    mo.push_back(static_cast<float>(p.unit * format[2].step(h) / so));
  }
  builder_.add_vector(step, "m", m);
  builder_.add_vector(step, "mo", mo);
  add_score_terms(node, step, windows, heads, tokens);
  if (p.codes == "log") builder_.add_vector(step, "thr", p.table.thresholds);
  if (p.pv == "table") {
    builder_.add_vector(step, "lut",
                        std::vector<uint8_t>(p.table.levels.begin(), p.table.levels.end()));
  } else if (p.pv == "table2") {
    builder_.add_vector(step, "lut", p.table.levels);
  } else if (p.codes == "uniform") {
    builder_.add_vector(step, "pinv", std::vector<float>{p.inverse});
    step.ints["phi"] = p.highest;
  }
  if (out_format != nullptr) {
    step.ints.insert({{"zero", out_format->zero}, {"lo", out_format->lo}, {"hi", out_format->hi}});
    define_codes(node.outputs[0], *out_format, out);
  } else {
    define_real(node.outputs[0], out);
  }
  at(node.outputs[0]).item = item;
}

}  // namespace repquant::lowering
