#include "repquant/evaluate/evaluate.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include <fmt/format.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

// `part` of every sample, [N, ...].
template <class Part> Tensor stack(const std::vector<Sample>& samples, Part part) {
  const Tensor& first = part(samples[0]);
  Shape shape = first.shape();
  shape.insert(shape.begin(), static_cast<int64_t>(samples.size()));
  Tensor batch(first.dtype(), shape);
  for (size_t i = 0; i < samples.size(); ++i) {
    const Tensor& item = part(samples[i]);
    if (item.shape() != first.shape() || item.dtype() != batch.dtype()) {
      throw Error(
          ErrorCode::kCorruptFile,
          fmt::format("evaluate: \"{}\": expected shape {} as \"{}\" has, got {}", samples[i].name,
                      to_string(first.shape()), samples[0].name, to_string(item.shape())),
          "pass --crop to make them equal");
    }
    if (item.bytes() > 0) {
      std::memcpy(static_cast<std::byte*>(batch.data()) + i * item.bytes(), item.data(),
                  item.bytes());
    }
  }
  return batch;
}

std::vector<Tensor> stack_inputs(const std::vector<Sample>& samples) {
  std::vector<Tensor> inputs{
      stack(samples, [](const Sample& s) -> const Tensor& { return s.input; })};
  for (size_t k = 0; k < samples[0].others.size(); ++k) {
    inputs.push_back(
        stack(samples, [k](const Sample& s) -> const Tensor& { return s.others.at(k); }));
  }
  return inputs;
}

std::vector<Sample> load(const Dataset& dataset, std::span<const int64_t> indices,
                         ThreadPool* pool) {
  std::vector<Sample> samples(indices.size());
  const auto body = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      samples[static_cast<size_t>(i)] = dataset.load(indices[static_cast<size_t>(i)]);
    }
  };
  const auto count = static_cast<int64_t>(indices.size());
  if (pool != nullptr) pool->parallel_for(count, 1, body);
  else body(0, count, 0);
  return samples;
}

// Appends the logits of a batch without the first `offset` classes.
void append(Scores& scores, const Tensor& output, int64_t count, int64_t offset) {
  if (output.rank() < 1 || output.shape()[0] != count || output.dtype() != DType::kF32 ||
      output.size() == 0) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("evaluate: model output: expected f32 [{}, classes], got {} {}", count,
                            name_of(output.dtype()), to_string(output.shape())));
  }
  const int64_t width = output.size() / count, classes = width - offset;
  const int64_t positions = output.rank() == 3 ? output.shape()[1] : 1;
  if (classes < 1 || (scores.classes != 0 && scores.classes != classes)) {
    throw Error(
        ErrorCode::kCorruptFile,
        fmt::format(
            "evaluate: model output: expected more than {} outputs, as many for each batch, got {}",
            offset, width));
  }
  scores.classes = classes;
  scores.positions = offset == 0 ? positions : 1;
  scores.signal = output.rank() > 3;
  const float* values = output.as<float>().data();
  for (int64_t i = 0; i < count; ++i) {
    scores.logits.insert(scores.logits.end(), values + i * width + offset,
                         values + (i + 1) * width);
  }
}

// What the answers of this batch are compared with.
void append_targets(Scores& scores, const std::vector<Sample>& samples) {
  for (const Sample& sample : samples) {
    if (sample.target.size() == 0) continue;
    if (sample.target.size() != scores.classes) {
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("evaluate: \"{}\": expected a target of {} elements, as the model "
                              "answers, got {}",
                              sample.name, scores.classes, to_string(sample.target.shape())));
    }
    const auto values = sample.target.as<float>();
    scores.targets.insert(scores.targets.end(), values.begin(), values.end());
  }
}

void report(const EvaluateOptions& options, int64_t done, int64_t total) {
  if (options.sink == nullptr) return;
  options.sink->progress({options.pass, fmt::format("item {}/{}", done, total), "", "",
                          static_cast<double>(done) / static_cast<double>(total)});
}

}  // namespace

Scores evaluate(const Model& model, const Dataset& dataset, const EvaluateOptions& options) {
  std::vector<int64_t> indices = options.indices;
  if (indices.empty()) {
    indices.resize(static_cast<size_t>(dataset.size()));
    std::iota(indices.begin(), indices.end(), 0);
  }
  const auto total = static_cast<int64_t>(indices.size());
  if (total == 0 || options.batch < 1 || options.label_offset < 0) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format(
            "evaluate: expected at least one item, a batch of 1 or more and a label offset of 0 or "
            "more, got {}, {} and {}",
            total, options.batch, options.label_offset));
  }
  Scores scores;
  for (int64_t begin = 0; begin < total; begin += options.batch) {
    if (options.stop != nullptr && options.stop->raised()) {
      throw Interrupted(fmt::format("evaluate: interrupted after {} of {} items", begin, total));
    }
    const int64_t count = std::min(options.batch, total - begin);
    std::vector<Sample> samples = load(dataset,
                                       std::span<const int64_t>(indices).subspan(
                                           static_cast<size_t>(begin), static_cast<size_t>(count)),
                                       options.pool);
    append(scores, model(stack_inputs(samples)), count, options.label_offset);
    if (options.label_offset == 0) append_targets(scores, samples);
    for (Sample& sample : samples) {
      if (sample.label >= scores.classes) {
        throw Error(
            ErrorCode::kCorruptFile,
            fmt::format(
                "evaluate: \"{}\": expected a label below {} (the classes of the model), got {}",
                sample.name, scores.classes, sample.label),
            "check --label-offset and the label file");
      }
      scores.labels.push_back(sample.label);
      scores.names.push_back(std::move(sample.name));
    }
    report(options, begin + count, total);
  }
  return scores;
}

}  // namespace repquant
