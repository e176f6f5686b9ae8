#pragma once
// One function a step op, on tensors of one item. Internal to the folder.
#include <map>
#include <span>
#include <string>
#include <vector>

#include "repquant/core/format/uniform.h"
#include "repquant/core/plan.h"

namespace repquant::simulate {

struct StepContext {
  const Plan& plan;
  const Step& step;
  std::vector<const Tensor*> in;
  Tensor& out;                      // allocated
  std::span<const int8_t> weights;  // of products, [N][K]

  std::span<const float> reals(const std::string& role) const {
    return plan.tensor(step, role).as<float>();
  }
  int32_t integer(const std::string& key) const {
    return static_cast<int32_t>(plan.integer(step, key));
  }
};

// The code range of a step's output.
struct CodeOutput {
  int32_t zero = 0, lo = 0, hi = 0;
  CodeOutput() = default;
  explicit CodeOutput(const StepContext& c)
      : zero(c.integer("zero")), lo(c.integer("lo")), hi(c.integer("hi")) {}
  uint8_t round(float v) const { return static_cast<uint8_t>(quantize_scaled(v, zero, lo, hi)); }
};

using StepFunction = void (*)(const StepContext&);
// Throws kUnsupported for an op without a function.
StepFunction step_function(const std::string& op);

void attention(const StepContext& c);  // attention.cpp
// rows.cpp
void l2_norm(const StepContext& c);
void softmax(const StepContext& c);
void matmul(const StepContext& c);
void copy_rows(const StepContext& c);
// floats.cpp
void activation(const StepContext& c);
// The function a step names in "kind", of one element.
float function_value(const StepContext& c, float x);
void binary(const StepContext& c);
void concat(const StepContext& c);
void max_pool(const StepContext& c);
void average_pool(const StepContext& c);
void reduce(const StepContext& c);
void gather_rows(const StepContext& c);
void cast(const StepContext& c);

}  // namespace repquant::simulate
