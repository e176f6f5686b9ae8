// Functions of one element: the step that computes them, and the exact function for tables.
#include <algorithm>
#include <cmath>

#include "repquant/core/format/functions.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {
namespace {

double softplus_exact(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }

Activation plain(const char* kind, double (*function)(double)) { return {kind, {}, function}; }

std::optional<Activation> with_parameters(const Node& node) {
  const auto attribute = [&](const char* name, float missing) {
    return node.attrs.real(name, missing);
  };
  switch (node.op) {
    case OpKind::kLeakyRelu: {
      const float a = attribute("alpha", 0.01f);
      return Activation{"leaky_relu", {a}, [a](double x) { return x > 0 ? x : double{a} * x; }};
    }
    case OpKind::kElu: {
      const float a = attribute("alpha", 1.0f);
      return Activation{
          "elu", {a}, [a](double x) { return x > 0 ? x : double{a} * std::expm1(x); }};
    }
    case OpKind::kHardSigmoid: {
      const float a = attribute("alpha", 0.2f), b = attribute("beta", 0.5f);
      return Activation{"hard_sigmoid", {a, b}, [a, b](double x) {
                          return std::clamp(double{a} * x + double{b}, 0.0, 1.0);
                        }};
    }
    default:
      return std::nullopt;
  }
}

std::optional<Activation> mathematical(OpKind op) {
  switch (op) {
    case OpKind::kSqrt:
      return plain("sqrt", [](double x) { return std::sqrt(x); });
    case OpKind::kReciprocal:
      return plain("reciprocal", [](double x) { return 1.0 / x; });
    case OpKind::kExp:
      return plain("exp", [](double x) { return std::exp(x); });
    case OpKind::kLog:
      return plain("log", [](double x) { return std::log(x); });
    case OpKind::kSin:
      return plain("sin", [](double x) { return std::sin(x); });
    case OpKind::kCos:
      return plain("cos", [](double x) { return std::cos(x); });
    case OpKind::kErf:
      return plain("erf", [](double x) { return std::erf(x); });
    case OpKind::kNeg:
      return plain("neg", [](double x) { return -x; });
    case OpKind::kAbs:
      return plain("abs", [](double x) { return std::fabs(x); });
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<Activation> activation_of(const Node& node) {
  switch (node.op) {
    case OpKind::kGelu:
      return node.attrs.text("approximate", "none") == "tanh" ? plain("gelu_tanh", gelu_tanh_exact)
                                                              : plain("gelu_erf", gelu_erf_exact);
    case OpKind::kSilu:
      return plain("silu", silu_exact);
    case OpKind::kRelu:
      return plain("relu", relu_exact);
    case OpKind::kSigmoid:
      return plain("sigmoid", sigmoid_exact);
    case OpKind::kTanh:
      return plain("tanh", tanh_exact);
    case OpKind::kHardSwish:
      return plain("hard_swish", [](double x) { return x * std::clamp(x / 6 + 0.5, 0.0, 1.0); });
    case OpKind::kSoftplus:
      return plain("softplus", softplus_exact);
    case OpKind::kMish:
      return plain("mish", [](double x) { return x * std::tanh(softplus_exact(x)); });
    default:
      break;
  }
  if (auto function = mathematical(node.op)) return function;
  return with_parameters(node);
}

}  // namespace repquant::lowering
