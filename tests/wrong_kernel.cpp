// A runtime with one wrong constant, for tests of `verify`: linked over the real one by
// --wrap (cli/CMakeLists.txt). REPQUANT_WRONG_CONSTANT names the artifact tensor whose first
// element is one off in the kernel that reads it; without it everything is as it should be.
// REPQUANT_RIGHT_ISA names an instruction set whose rows stay right.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "repquant/runtime/step_kernel.h"

namespace repquant::runtime {
namespace {

void change_first(Tensor& tensor) {
  if (tensor.dtype() == DType::kI32) tensor.as<int32_t>()[0] += 1;
  if (tensor.dtype() == DType::kU8) tensor.as<uint8_t>()[0] ^= 1;
  if (tensor.dtype() == DType::kF32)
    tensor.as<float>()[0] = std::nextafter(tensor.as<float>()[0], INFINITY);
}

bool reads(const Step& step, const std::string& tensor) {
  return std::any_of(step.tensors.begin(), step.tensors.end(),
                     [&](const auto& operand) { return operand.second == tensor; });
}

}  // namespace

#define REPQUANT_WRAPPED "_ZN8repquant7runtime16make_step_kernelERKNS_4PlanERKNS_4StepENS0_3IsaE"
std::unique_ptr<StepKernel> real(const Plan& plan, const Step& step,
                                 Isa isa) __asm__("__real_" REPQUANT_WRAPPED);
std::unique_ptr<StepKernel> wrapped(const Plan& plan, const Step& step,
                                    Isa isa) __asm__("__wrap_" REPQUANT_WRAPPED);
std::unique_ptr<StepKernel> wrapped(const Plan& plan, const Step& step, Isa isa) {
  const char* wanted = std::getenv("REPQUANT_WRONG_CONSTANT");
  const char* right = std::getenv("REPQUANT_RIGHT_ISA");
  const bool spared = right != nullptr && isa_name(isa) == right;
  if (wanted == nullptr || spared || !reads(step, wanted)) return real(plan, step, isa);
  static std::vector<std::unique_ptr<Plan>> kept;  // kernels point into their plan
  Plan& wrong = *kept.emplace_back(std::make_unique<Plan>(plan));
  change_first(wrong.tensors.at(wanted).data);
  for (const Step& same : wrong.steps) {
    if (same.name == step.name) return real(wrong, same, isa);
  }
  std::abort();
}

}  // namespace repquant::runtime
