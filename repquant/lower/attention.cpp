// multi_head_attention with integer products.
#include <cmath>

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

}  // namespace

void Lowering::emit_attention(NodeId id) {
  const Node& node = graph_.node(id);
  const int64_t heads = node.attrs.integer("heads", 1);
  const Shape item = at(node.inputs.at(0)).item;
  const bool masked = node.inputs.size() > 3 && node.inputs[3] != kNoValue;
  if (masked || node.attrs.integer("causal", 0) != 0)
    refuse(node, "masks and biases of scores are not built yet");
  if (node.attrs.integer("kv_heads", heads) != heads)
    refuse(node, "grouped heads are not built yet");
  for (size_t i = 1; i < 3; ++i) {
    if (at(node.inputs.at(i)).item != item) refuse(node, "expected q, k and v of one shape");
  }
  if (item.size() != 2 || heads < 1 || item[1] % heads != 0) {
    refuse(node, fmt::format("expected items [tokens, heads*d], got {} with {} heads",
                             to_string(item), heads));
  }
  CodeFormat format[3];
  std::vector<int> in;
  for (int i = 0; i < 3; ++i) {
    format[i] = site_format(id, i);
    const bool fits =
        format[i].scale.size() == 1 || static_cast<int64_t>(format[i].scale.size()) == heads;
    if (format[i].kind != CodeFormat::Kind::kUniform || !fits) {
      refuse(node, fmt::format("input {}: expected uniform codes, per tensor or per head", i));
    }
    in.push_back(codes(node.inputs[static_cast<size_t>(i)], format[i]));
  }
  const Probabilities p =
      probabilities(site(id, kProbabilities).params, quoted(node) + " probabilities");
  const Demand wanted = demand(node.outputs[0]);
  const CodeFormat* out_format = wanted.only_codes();
  if (out_format != nullptr && out_format->per_head()) out_format = nullptr;
  const std::string& name = graph_.value(node.outputs[0]).name;
  const int out = out_format != nullptr
                      ? builder_.add_buffer(name, DType::kU8, item, out_format->bits)
                      : builder_.add_real(name, item);

  Step& step = builder_.add_step("attention", node.name, in, out);
  step.ints = {
      {"heads", heads}, {"zq", format[0].zero}, {"zk", format[1].zero}, {"zv", format[2].zero}};
  step.strings = {{"codes", p.codes}, {"pv", p.pv}};
  const double head_width = static_cast<double>(item[1] / heads);
  const double scale = node.attrs.real("scale", static_cast<float>(1.0 / std::sqrt(head_width)));
  const size_t score_heads =
      format[0].per_head() || format[1].per_head() ? static_cast<size_t>(heads) : 1;
  std::vector<float> m, mo;
  for (size_t h = 0; h < score_heads; ++h) {
    m.push_back(static_cast<float>(format[0].step(h) * format[1].step(h) * scale));
  }
  const double so = out_format != nullptr ? out_format->step() : 1.0;
  for (size_t h = 0; h < format[2].scale.size(); ++h) {
    mo.push_back(static_cast<float>(p.unit * format[2].step(h) / so));
  }
  builder_.add_vector(step, "m", m);
  builder_.add_vector(step, "mo", mo);
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
}

}  // namespace repquant::lowering
