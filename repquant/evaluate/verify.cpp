#include "repquant/evaluate/verify.h"

#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "repquant/core/error.h"
#include "repquant/evaluate/artifact_model.h"
#include "repquant/runtime/session.h"
#include "repquant/simulate/simulate.h"

namespace repquant {
namespace {

using Bytes = std::vector<std::byte>;

double value_at(const std::byte* data, DType dtype, int64_t index) {
  if (dtype == DType::kU8) return static_cast<double>(std::to_integer<int>(data[index]));
  float value = 0;
  std::memcpy(&value, data + static_cast<size_t>(index) * sizeof(float), sizeof(float));
  return static_cast<double>(value);
}

// A NaN is a NaN: which of two operands it takes sign and payload from is the compiler's choice.
bool both_nan(const std::byte* a, const std::byte* b, DType dtype) {
  return dtype == DType::kF32 && std::isnan(value_at(a, dtype, 0)) &&
         std::isnan(value_at(b, dtype, 0));
}

std::optional<StepDifference> compare(const Bytes& simulated, ConstTensorView executed) {
  const size_t element = size_of(executed.dtype);
  const auto size = static_cast<int64_t>(simulated.size() / element);
  REPQUANT_CHECK(executed.size() == size &&
                 (executed.dtype == DType::kU8 || executed.dtype == DType::kF32));
  const auto* data = static_cast<const std::byte*>(executed.data);
  if (std::memcmp(data, simulated.data(), simulated.size()) == 0) return std::nullopt;
  StepDifference found{.element = -1, .size = size};
  for (int64_t i = 0; i < size; ++i) {
    const size_t at = static_cast<size_t>(i) * element;
    if (std::memcmp(data + at, simulated.data() + at, element) == 0 ||
        both_nan(data + at, simulated.data() + at, executed.dtype))
      continue;
    if (found.differing++ > 0) continue;
    found.element = i;
    found.simulated = value_at(simulated.data(), executed.dtype, i);
    found.executed = value_at(data, executed.dtype, i);
  }
  if (found.differing == 0) return std::nullopt;
  return found;
}

Tensor item_of(const Tensor& batch, int64_t index) {
  Shape shape = batch.shape();
  const size_t bytes = batch.bytes() / static_cast<size_t>(shape.at(0));
  shape[0] = 1;
  Tensor item(batch.dtype(), shape);
  std::memcpy(item.data(),
              static_cast<const std::byte*>(batch.data()) + static_cast<size_t>(index) * bytes,
              bytes);
  return item;
}

std::vector<ConstTensorView> views(const std::vector<Tensor>& tensors) {
  std::vector<ConstTensorView> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.view());
  return result;
}

std::optional<StepDifference> compare_item(const Simulator& simulator, Session& session,
                                           const std::vector<Tensor>& inputs, int64_t index,
                                           const StepCompared& on_step) {
  std::map<int, Bytes> trace;  // by buffer
  std::vector<Tensor> outputs =
      simulator.run(inputs, [&](const Step& step, int out, ConstTensorView value) {
        const auto* data = static_cast<const std::byte*>(value.data);
        trace[step.out.at(static_cast<size_t>(out))].assign(
            data, data + static_cast<size_t>(value.size()) * size_of(value.dtype));
      });
  std::vector<Tensor> results;
  for (const Tensor& output : outputs) results.emplace_back(output.dtype(), output.shape());
  std::vector<TensorView> result_views;
  for (Tensor& result : results) result_views.push_back(result.view());
  std::optional<StepDifference> found;
  session.run_tapped(views(inputs), result_views,
                     [&](const Step& step, int out, ConstTensorView value) {
                       if (found) return;
                       found = compare(trace.at(step.out.at(static_cast<size_t>(out))), value);
                       if (found) {
                         found->item = index;
                         found->step = step.name;
                         found->op = step.op;
                       } else if (on_step) {
                         on_step(index, step);
                       }
                     });
  for (size_t i = 0; i < outputs.size() && !found; ++i) {
    const auto* data = static_cast<const std::byte*>(outputs[i].data());
    found = compare(Bytes(data, data + outputs[i].bytes()), std::as_const(results[i]).view());
    if (found) found->step = "output";
  }
  return found;
}

}  // namespace

std::optional<StepDifference> first_difference(const Plan& plan,
                                               std::shared_ptr<const Program> program,
                                               const std::vector<Tensor>& given, ThreadPool* pool,
                                               const StepCompared& on_step) {
  REPQUANT_CHECK(!given.empty() && given[0].rank() > 0);
  const std::vector<Tensor> inputs = plan_inputs(plan, given);
  const Simulator simulator(plan);
  Session session(std::move(program), {.max_batch = 1, .pool = pool, .parallel_from_ns = 0});
  for (int64_t i = 0; i < inputs[0].shape()[0]; ++i) {
    std::vector<Tensor> item;
    for (const Tensor& input : inputs) item.push_back(item_of(input, i));
    if (auto found = compare_item(simulator, session, item, i, on_step)) return found;
  }
  return std::nullopt;
}

}  // namespace repquant
