#include "repquant/pipeline/plan_state.h"

#include <fmt/format.h>

namespace repquant {
namespace {

using nlohmann::json;

template <class... Ts> struct Overload : Ts... {
  using Ts::operator()...;
};
template <class... Ts> Overload(Ts...) -> Overload<Ts...>;

json store(const Granularity& granularity) {
  return std::visit(Overload{[](const PerTensor&) { return json{"tensor", 0}; },
                             [](const PerChannel& g) { return json{"channel", g.axis}; },
                             [](const PerHead& g) { return json{"head", g.heads}; },
                             [](const PerGroup& g) { return json{"group", g.size}; },
                             [](const PerToken&) { return json{"token", 0}; }},
                    granularity);
}

Granularity restore_granularity(const json& stored) {
  const std::string kind = stored.at(0).get<std::string>();
  const int value = stored.at(1).get<int>();
  if (kind == "tensor") return PerTensor{};
  if (kind == "channel") return PerChannel{value};
  if (kind == "head") return PerHead{value};
  if (kind == "group") return PerGroup{value};
  if (kind == "token") return PerToken{};
  throw Error(ErrorCode::kCorruptFile, fmt::format("checkpoint: granularity \"{}\"", kind));
}

// Doubles keep every bit in nlohmann's shortest text.
json store(const Format& format) {
  return std::visit(
      Overload{[](const Uniform& f) {
                 return json{"uniform", f.symmetric, f.narrow, f.include_zero, f.compat};
               },
               [](const Log& f) { return json{"log", f.base, f.shift, f.table_bits, f.compat}; },
               [](const Twin& f) { return json{"twin", f.gelu, f.m}; },
               [](const Power& f) { return json{"power", f.exponent}; }},
      format);
}

Format restore_format(const json& j) {
  const std::string kind = j.at(0).get<std::string>();
  if (kind == "uniform") {
    return Uniform{j.at(1).get<bool>(), j.at(2).get<bool>(), j.at(3).get<bool>(),
                   j.at(4).get<bool>()};
  }
  if (kind == "log") {
    return Log{j.at(1).get<double>(), j.at(2).get<double>(), j.at(3).get<int>(),
               j.at(4).get<bool>()};
  }
  if (kind == "twin") return Twin{j.at(1).get<bool>(), j.at(2).get<int>()};
  if (kind == "power") return Power{j.at(1).get<double>()};
  throw Error(ErrorCode::kCorruptFile, fmt::format("checkpoint: format \"{}\"", kind));
}

template <class T> Tensor tensor_of(const std::vector<T>& values) {
  return Tensor::of<T>({static_cast<int64_t>(values.size())}, values);
}

template <class T>
std::vector<T> values_of(const std::map<std::string, Tensor>& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end() || found->second.dtype() != DTypeOf<T>::value) {
    throw Error(ErrorCode::kCorruptFile, fmt::format("checkpoint: tensor \"{}\" is missing", name));
  }
  const auto span = found->second.as<T>();
  return {span.begin(), span.end()};
}

}  // namespace

json store_plan(const QuantPlan& plan, std::map<std::string, Tensor>& tensors) {
  json rows = json::array();
  for (const auto& [site, assignment] : plan.all()) {
    const std::string name = fmt::format("site{}", rows.size());
    const QuantSpec& spec = assignment.params.spec;
    rows.push_back({{"node", site.node},
                    {"input", site.input},
                    {"weight", assignment.role == Role::kWeight},
                    {"set_by", assignment.set_by},
                    {"bits", spec.bits},
                    {"format", store(spec.format)},
                    {"granularity", store(spec.granularity)},
                    {"range", static_cast<int>(spec.range.method)}});
    tensors[name + ".scale"] = tensor_of(assignment.params.scale);
    tensors[name + ".zero"] = tensor_of(assignment.params.zero_point);
    tensors[name + ".lower"] = tensor_of(assignment.params.lower);
  }
  return rows;
}

QuantPlan restore_plan(const json& stored, const std::map<std::string, Tensor>& tensors) {
  QuantPlan plan;
  try {
    for (size_t i = 0; i < stored.size(); ++i) {
      const json& row = stored.at(i);
      const std::string name = fmt::format("site{}", i);
      Assignment assignment;
      assignment.role = row.at("weight").get<bool>() ? Role::kWeight : Role::kActivation;
      assignment.set_by = row.at("set_by").get<std::string>();
      assignment.params.spec = {row.at("bits").get<int>(), restore_format(row.at("format")),
                                restore_granularity(row.at("granularity")),
                                Range{static_cast<RangeMethod>(row.at("range").get<int>())}};
      assignment.params.scale = values_of<float>(tensors, name + ".scale");
      assignment.params.zero_point = values_of<int32_t>(tensors, name + ".zero");
      assignment.params.lower = values_of<float>(tensors, name + ".lower");
      plan.set({row.at("node").get<NodeId>(), row.at("input").get<int>()}, std::move(assignment));
    }
  } catch (const json::exception& error) {
    throw Error(ErrorCode::kCorruptFile, fmt::format("checkpoint: plan: {}", error.what()));
  }
  return plan;
}

}  // namespace repquant
