#include "repquant/evaluate/artifact_model.h"

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

const Buffer& only(const Plan& plan, const std::vector<int>& indices, const char* what) {
  if (indices.size() != 1) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("evaluate: artifact: expected one {}, got {}", what, indices.size()));
  }
  return plan.buffers.at(static_cast<size_t>(indices[0]));
}

}  // namespace

Model artifact_model(std::shared_ptr<const Program> program, ThreadPool& pool) {
  const Buffer& in = only(program->plan(), program->plan().inputs, "input");
  const Buffer& out = only(program->plan(), program->plan().outputs, "output");
  auto sessions = std::make_shared<std::vector<std::unique_ptr<Session>>>();
  for (int i = 0; i < pool.size(); ++i) sessions->push_back(std::make_unique<Session>(program));
  return [program, sessions, &pool, &in, &out](const Tensor& batch) {
    const int64_t count = batch.rank() > 0 ? batch.shape()[0] : 0;
    if (batch.dtype() != DType::kF32 || batch.shape() != with_batch(count, in.item_shape)) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("evaluate: input \"{}\": expected f32 {}, got {} {}", in.name,
                              to_string(in.item_shape), name_of(batch.dtype()),
                              to_string(std::span(batch.shape()).subspan(count > 0 ? 1 : 0))),
                  "check --crop and --resize against the model's input");
    }
    Tensor result(DType::kF32, with_batch(count, out.item_shape));
    const Shape in_shape = with_batch(1, in.item_shape), out_shape = with_batch(1, out.item_shape);
    const auto in_size = static_cast<size_t>(element_count(in_shape));
    const auto out_size = static_cast<size_t>(element_count(out_shape));
    const float* source = batch.as<float>().data();
    float* target = result.as<float>().data();
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int worker) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        const std::array<ConstTensorView, 1> inputs{
            {{source + i * in_size, DType::kF32, in_shape}}};
        const std::array<TensorView, 1> outputs{{{target + i * out_size, DType::kF32, out_shape}}};
        (*sessions)[static_cast<size_t>(worker)]->run(inputs, outputs);
      }
    });
    return result;
  };
}

}  // namespace repquant
