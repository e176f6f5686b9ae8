#pragma once
// activation: f32 -> f32 by the fixed definitions of core/format/elementary.h.
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

enum class ActivationKind : uint8_t { kGeluErf, kGeluTanh, kSilu, kRelu, kRelu6, kSigmoid, kTanh };

std::optional<ActivationKind> parse_activation(std::string_view name);  // the plan's spelling

struct ActivationArgs {
  ActivationKind kind = ActivationKind::kGeluErf;
  const float* x = nullptr;
  float* out = nullptr;  // may be x
  int64_t count = 0;
};

struct ActivationKernel {
  std::string_view name;
  Isa isa;
  void (*run)(const ActivationArgs&) noexcept;
};

std::span<const ActivationKernel* const> activation_kernels();

// Rows, each defined where its instruction set exists.
extern const ActivationKernel activation_scalar, activation_avx2, activation_avx512vnni;

}  // namespace repquant::runtime
