#include "repquant/evaluate/bit_matrix.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "repquant/core/files.h"
#include "repquant/evaluate/artifact_model.h"
#include "repquant/runtime/kernels/isa.h"
#include "repquant/runtime/session.h"

namespace repquant {
namespace {

using Bytes = std::vector<std::byte>;

Shape with_batch(int64_t batch, Shape item) {
  item.insert(item.begin(), batch);
  return item;
}

// The first `count` items, from the first again where there are fewer.
Tensor repeated(const Tensor& items, int64_t count) {
  Shape shape = items.shape();
  const int64_t given = shape.at(0);
  shape[0] = count;
  Tensor all(items.dtype(), shape);
  const size_t bytes = items.bytes() / static_cast<size_t>(given);
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(
        static_cast<std::byte*>(all.data()) + static_cast<size_t>(i) * bytes,
        static_cast<const std::byte*>(items.data()) + static_cast<size_t>(i % given) * bytes,
        bytes);
  }
  return all;
}

// Batches of one plan's items, answered by any program of it.
class Asker {
 public:
  Asker(const Plan& plan, const std::vector<Tensor>& inputs, int64_t items) {
    for (const Tensor& input : plan_inputs(plan, inputs)) inputs_.push_back(repeated(input, items));
    for (const int index : plan.outputs) {
      outputs_.push_back(plan.buffers[static_cast<size_t>(index)].item_shape);
      item_bytes_ += static_cast<size_t>(element_count(outputs_.back())) * sizeof(float);
    }
  }
  size_t item_bytes() const { return item_bytes_; }

  // All answers, item by item, each with its outputs in order.
  Bytes ask(const std::shared_ptr<const Program>& program, ThreadPool* pool, int64_t batch) const {
    Session session(program, {.max_batch = batch, .pool = pool, .parallel_from_ns = 0});
    const int64_t items = inputs_.at(0).shape()[0];
    Bytes answers(static_cast<size_t>(items) * item_bytes_);
    for (int64_t first = 0; first < items; first += batch)
      ask_batch(session, first, std::min(batch, items - first), answers);
    return answers;
  }

 private:
  void ask_batch(Session& session, int64_t first, int64_t count, Bytes& answers) const {
    std::vector<Shape> shapes;
    for (const Tensor& input : inputs_) {
      shapes.push_back(input.shape());
      shapes.back()[0] = count;
    }
    std::vector<ConstTensorView> in;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const size_t bytes = inputs_[i].bytes() / static_cast<size_t>(inputs_[i].shape()[0]);
      const auto* data = static_cast<const std::byte*>(inputs_[i].data());
      in.push_back({data + static_cast<size_t>(first) * bytes, inputs_[i].dtype(), shapes[i]});
    }
    std::vector<Tensor> results;
    for (const Shape& shape : outputs_) results.emplace_back(DType::kF32, with_batch(count, shape));
    std::vector<TensorView> out;
    for (Tensor& result : results) out.push_back(result.view());
    session.run(in, out);
    for (int64_t i = 0; i < count; ++i) {
      std::byte* to = answers.data() + static_cast<size_t>(first + i) * item_bytes_;
      for (const Tensor& result : results) {
        const size_t bytes = result.bytes() / static_cast<size_t>(count);
        std::memcpy(to,
                    static_cast<const std::byte*>(result.data()) + static_cast<size_t>(i) * bytes,
                    bytes);
        to += bytes;
      }
    }
  }

  std::vector<Tensor> inputs_;
  std::vector<Shape> outputs_;
  size_t item_bytes_ = 0;
};

}  // namespace

BitMatrix compare_bits(const Plan& plan, const std::vector<Tensor>& inputs,
                       const BitMatrixOptions& options) {
  REPQUANT_CHECK(!options.threads.empty() && !options.batches.empty());
  BitMatrix matrix;
  matrix.isas = options.isas.empty() ? runtime::available_isas() : options.isas;
  matrix.items = *std::ranges::max_element(options.batches);
  const Asker asker(plan, inputs, matrix.items);
  const Bytes wanted = asker.ask(Program::from_plan(plan, {.isa = "scalar"}), nullptr, 1);
  matrix.digest = sha256_hex(wanted);
  std::vector<std::unique_ptr<ThreadPool>> pools;
  for (const int threads : options.threads) pools.push_back(std::make_unique<ThreadPool>(threads));
  for (const std::string& isa : matrix.isas) {
    const auto program = Program::from_plan(plan, {.isa = isa});
    for (const auto& pool : pools) {
      for (const int64_t batch : options.batches) {
        if (options.between) options.between();
        const Bytes got = asker.ask(program, pool->size() == 1 ? nullptr : pool.get(), batch);
        ++matrix.combinations;
        const auto at = std::ranges::mismatch(got, wanted).in1 - got.begin();
        if (at == static_cast<std::ptrdiff_t>(got.size())) continue;
        const auto item_bytes = static_cast<int64_t>(asker.item_bytes());
        matrix.difference = {isa, pool->size(), batch, at / item_bytes,
                             at % item_bytes / static_cast<int64_t>(sizeof(float))};
        return matrix;
      }
    }
  }
  return matrix;
}

}  // namespace repquant
