#pragma once
// activation: f32 -> f32 by the fixed definitions of core/format/functions.h.
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/core/format/functions.h"
#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

struct ActivationArgs {
  FunctionKind kind = FunctionKind::kGeluErf;
  const float* x = nullptr;
  float* out = nullptr;  // may be x
  int64_t count = 0;
  float a = 0, b = 0;  // parameters of the kinds that have some
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
