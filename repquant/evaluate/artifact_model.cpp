#include "repquant/evaluate/artifact_model.h"

#include <algorithm>
#include <array>
#include <vector>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/runtime/session.h"

namespace repquant {
namespace {

Shape with_batch(int64_t batch, const Shape& item) {
  Shape shape{batch};
  shape.insert(shape.end(), item.begin(), item.end());
  return shape;
}

const Buffer& buffer(const Plan& plan, int index) {
  return plan.buffers.at(static_cast<size_t>(index));
}

void check_inputs(const Plan& plan, Model::Inputs batch) {
  if (batch.size() != plan.inputs.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("evaluate: artifact: expected {} inputs, got {}", plan.inputs.size(),
                            batch.size()));
  }
  const int64_t count = batch[0].rank() > 0 ? batch[0].shape()[0] : 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    const Buffer& in = buffer(plan, plan.inputs[i]);
    const bool single = batch[i].rank() == 1 && in.item_shape == Shape{1};
    if (batch[i].dtype() == in.dtype &&
        (batch[i].shape() == with_batch(count, in.item_shape) ||
         (single && batch[i].shape()[0] == count)))
      continue;
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("evaluate: input \"{}\": expected {} {}, got {} {}", in.name,
                    in.dtype == DType::kF32 ? "f32" : std::string(name_of(in.dtype)),
                    to_string(in.item_shape), name_of(batch[i].dtype()),
                    to_string(std::span(batch[i].shape()).subspan(batch[i].rank() > 0 ? 1 : 0))),
        "check --crop and --resize against the model's input");
  }
}

// Where item `index` of a batch lies.
template <class Byte> Byte* item_of(Byte* data, const Buffer& buffer, int64_t index) {
  return data + static_cast<size_t>(element_count(buffer.item_shape)) * size_of(buffer.dtype) *
                    static_cast<size_t>(index);
}

void run_item(Session& session, const Plan& plan, Model::Inputs batch, int64_t index,
              Tensor& result) {
  std::vector<Shape> shapes;
  for (const int input : plan.inputs)
    shapes.push_back(with_batch(1, buffer(plan, input).item_shape));
  std::vector<ConstTensorView> inputs;
  for (size_t k = 0; k < batch.size(); ++k) {
    const Buffer& in = buffer(plan, plan.inputs[k]);
    const auto* data = static_cast<const std::byte*>(batch[k].data());
    inputs.push_back({item_of(data, in, index), in.dtype, shapes[k]});
  }
  const Buffer& out = buffer(plan, plan.outputs[0]);
  const Shape shape = with_batch(1, out.item_shape);
  const std::array<TensorView, 1> outputs{
      {{item_of(static_cast<std::byte*>(result.data()), out, index), DType::kF32, shape}}};
  session.run(inputs, outputs);
}

}  // namespace

std::vector<Tensor> plan_inputs(const Plan& plan, Model::Inputs inputs) {
  std::vector<Tensor> result(inputs.begin(), inputs.end());
  for (size_t i = 0; i < std::min(result.size(), plan.inputs.size()); ++i) {
    if (result[i].rank() == 1 && buffer(plan, plan.inputs[i]).item_shape == Shape{1})
      result[i].reshape({result[i].shape()[0], 1});
  }
  return result;
}

Model artifact_model(std::shared_ptr<const Program> program, ThreadPool& pool) {
  if (program->plan().outputs.size() != 1) {
    throw Error(ErrorCode::kUnsupported, fmt::format("evaluate: artifact: expected one output, got {}",
                                                     program->plan().outputs.size()));
  }
  auto sessions = std::make_shared<std::vector<std::unique_ptr<Session>>>();
  for (int i = 0; i < pool.size(); ++i) sessions->push_back(std::make_unique<Session>(program));
  return Model([program, sessions, &pool](Model::Inputs batch) {
    const Plan& plan = program->plan();
    check_inputs(plan, batch);
    const int64_t count = batch[0].shape()[0];
    Tensor result(DType::kF32, with_batch(count, buffer(plan, plan.outputs[0]).item_shape));
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i)
        run_item(*(*sessions)[static_cast<size_t>(worker)], plan, batch, i, result);
    });
    return result;
  });
}

}  // namespace repquant
