#include "repquant/simulate/simulate.h"

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/simulate/steps.h"

namespace repquant {
namespace {

// Number of items, the same for every input.
int64_t check_inputs(const Plan& plan, const std::vector<Tensor>& inputs) {
  const auto fail = [](const std::string& expected, const std::string& got) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("simulate: inputs: expected {}, got {}", expected, got));
  };
  if (inputs.size() != plan.inputs.size()) {
    fail(std::to_string(plan.inputs.size()), std::to_string(inputs.size()));
  }
  int64_t items = -1;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Buffer& buffer = plan.buffers[static_cast<size_t>(plan.inputs[i])];
    const Shape& shape = inputs[i].shape();
    const bool fits = inputs[i].dtype() == buffer.dtype && !shape.empty() && shape[0] >= 1 &&
                      (Shape(shape.begin() + 1, shape.end()) == buffer.item_shape ||
                       (shape.size() == 1 && buffer.item_shape == Shape{1})) &&
                      (items < 0 || items == shape[0]);
    if (!fits) {
      fail(fmt::format("{} items {} for \"{}\"", name_of(buffer.dtype),
                       to_string(buffer.item_shape), buffer.name),
           fmt::format("{} {}", name_of(inputs[i].dtype()), to_string(shape)));
    }
    items = shape[0];
  }
  return items;
}

}  // namespace

Simulator::Simulator(const Plan& plan) : plan_(plan) {
  verify_plan(plan);
  for (const Step& step : plan.steps) {
    static_cast<void>(simulate::step_function(step.op));
    weights_.emplace_back();
    if (step.op == "linear" || step.op == "conv" || step.op == "depthwise")
      weights_.back() = unpack_weights(plan.tensors.at(step.tensors.at("w")));
  }
}

void Simulator::run_item(std::vector<Tensor>& buffers, const Tap& tap) const {
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    std::vector<const Tensor*> in;
    for (const int index : step.in) in.push_back(&buffers[static_cast<size_t>(index)]);
    const Buffer& out = plan_.buffers[static_cast<size_t>(step.out[0])];
    Tensor& result = buffers[static_cast<size_t>(step.out[0])];
    result = Tensor(out.dtype, out.item_shape);
    simulate::step_function(step.op)({plan_, step, std::move(in), result, weights_[i]});
    if (tap) tap(step, 0, std::as_const(result).view());
  }
}

std::vector<Tensor> Simulator::run(const std::vector<Tensor>& inputs, const Tap& tap) const {
  const int64_t items = check_inputs(plan_, inputs);
  std::vector<Tensor> outputs;
  for (const int index : plan_.outputs) {
    const Buffer& buffer = plan_.buffers[static_cast<size_t>(index)];
    Shape shape = buffer.item_shape;
    shape.insert(shape.begin(), items);
    outputs.emplace_back(buffer.dtype, shape);
  }
  for (int64_t item = 0; item < items; ++item) {
    std::vector<Tensor> buffers(plan_.buffers.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      Tensor& buffer = buffers[static_cast<size_t>(plan_.inputs[i])];
      const Buffer& input = plan_.buffers[static_cast<size_t>(plan_.inputs[i])];
      buffer = Tensor(input.dtype, input.item_shape);
      const auto* from = static_cast<const std::byte*>(inputs[i].data());
      std::memcpy(buffer.data(), from + static_cast<size_t>(item) * buffer.bytes(), buffer.bytes());
    }
    run_item(buffers, tap);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Tensor& buffer = buffers[static_cast<size_t>(plan_.outputs[i])];
      auto* to = static_cast<std::byte*>(outputs[i].data());
      std::memcpy(to + static_cast<size_t>(item) * buffer.bytes(), buffer.data(), buffer.bytes());
    }
  }
  return outputs;
}

}  // namespace repquant
