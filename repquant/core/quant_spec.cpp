#include "repquant/core/quant_spec.h"

#include <fmt/format.h>

namespace repquant {
namespace {

template <class... Ts> struct Overload : Ts... { using Ts::operator()...; };
template <class... Ts> Overload(Ts...) -> Overload<Ts...>;

std::string name_of(const Granularity& granularity) {
  return std::visit(Overload{
      [](const PerTensor&) { return std::string("per-tensor"); },
      [](const PerChannel& g) { return fmt::format("per-channel({})", g.axis); },
      [](const PerHead& g) { return fmt::format("per-head({})", g.heads); },
      [](const PerGroup& g) { return fmt::format("per-group({})", g.size); },
      [](const PerToken&) { return std::string("per-token"); }}, granularity);
}

std::string name_of(const Format& format) {
  return std::visit(Overload{
      [](const Uniform& f) { return std::string(f.symmetric ? "symmetric" : "asymmetric"); },
      [](const Log& f) {
        return fmt::format("log(B={:.4g}{}{})", f.base, f.shift != 0 ? ",shift" : "",
                           f.compat ? ",compat" : "");
      },
      [](const Twin& f) { return fmt::format("twin(m={})", f.m); },
      [](const Power& f) { return fmt::format("power(a={:.3g})", f.exponent); }}, format);
}

}  // namespace

std::string to_string(const QuantSpec& spec) {
  return fmt::format("{}-bit {} {}", spec.bits, name_of(spec.format), name_of(spec.granularity));
}

}  // namespace repquant
