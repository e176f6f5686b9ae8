#include "repquant/evaluate/evaluate.h"

#include <gtest/gtest.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

// Item i is the vector (i, i + 0.5); its label i mod 3.
class Counting final : public Dataset {
 public:
  explicit Counting(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  Sample load(int64_t i) const override {
    const auto x = static_cast<float>(i);
    const bool odd = i == odd_one_out;
    return {
        odd ? Tensor(DType::kF32, {3}) : Tensor::of<float>({2}, std::vector<float>{x, x + 0.5f}),
        label(i), name(i)};
  }
  std::string digest(int64_t i) const override { return name(i); }
  std::string name(int64_t i) const override { return "item" + std::to_string(i); }
  int64_t label(int64_t i) const override { return i % 3; }
  const std::vector<std::string>& class_names() const override { return names_; }
  int64_t odd_one_out = -1;

 private:
  int64_t size_;
  std::vector<std::string> names_;
};

// Class k of item i scores i if k == i mod 3, else -k.
Tensor model(const Tensor& batch) {
  const int64_t n = batch.shape()[0];
  Tensor out(DType::kF32, {n, 3});
  for (int64_t i = 0; i < n; ++i) {
    const float x = batch.as<float>()[static_cast<size_t>(2 * i)];
    EXPECT_EQ(batch.as<float>()[static_cast<size_t>(2 * i + 1)], x + 0.5f);
    for (int64_t k = 0; k < 3; ++k) {
      out.as<float>()[static_cast<size_t>(3 * i + k)] =
          k == static_cast<int64_t>(x) % 3 ? x + 1 : -static_cast<float>(k);
    }
  }
  return out;
}

TEST(Evaluate, ScoresDoNotDependOnBatchOrThreads) {
  const Counting data(11);
  const Scores whole = evaluate(model, data, {.batch = 11});
  EXPECT_EQ(whole.classes, 3);
  EXPECT_EQ(whole.count(), 11);
  EXPECT_EQ(whole.names[10], "item10");
  EXPECT_DOUBLE_EQ(top1(whole), 100.0);
  EXPECT_EQ(whole.row(4)[1], 5.0f);
  ThreadPool pool(3);
  for (const int64_t batch : {1, 4, 100}) {
    EXPECT_EQ(evaluate(model, data, {.batch = batch}), whole);
    EXPECT_EQ(evaluate(model, data, {.batch = batch, .pool = &pool}), whole);
  }
}

TEST(Evaluate, ChosenItems) {
  const Scores part = evaluate(model, Counting(11), {.batch = 2, .indices = {7, 3, 9}});
  EXPECT_EQ(part.names, (std::vector<std::string>{"item7", "item3", "item9"}));
  EXPECT_EQ(part.labels, (std::vector<int64_t>{1, 0, 0}));
}

TEST(Evaluate, LabelOffsetDropsTheFirstClasses) {
  const auto with_background = [](const Tensor& batch) {
    const Tensor inner = model(batch);
    Tensor out(DType::kF32, {batch.shape()[0], 4});
    for (size_t i = 0; i < static_cast<size_t>(batch.shape()[0]); ++i) {
      out.as<float>()[4 * i] = 1e9f;  // would win
      for (size_t k = 0; k < 3; ++k) out.as<float>()[4 * i + 1 + k] = inner.as<float>()[3 * i + k];
    }
    return out;
  };
  EXPECT_EQ(evaluate(with_background, Counting(5), {.label_offset = 1}),
            evaluate(model, Counting(5)));
}

TEST(Evaluate, Errors) {
  const Counting data(5);
  const auto outputs = [](Shape shape) {
    return [shape](const Tensor&) { return Tensor(DType::kF32, shape); };
  };
  EXPECT_THROW(evaluate(outputs({4, 3}), data), Error);  // not the batch
  EXPECT_THROW(evaluate(outputs({5, 2}), data), Error);  // label 2 of 2 classes
  EXPECT_THROW(evaluate(outputs({5, 3}), data, {.label_offset = 3}), Error);  // nothing left
  EXPECT_THROW(evaluate([](const Tensor&) { return Tensor(DType::kU8, {5, 3}); }, data), Error);
  EXPECT_THROW(evaluate(model, data, {.batch = 0}), Error);
  EXPECT_THROW(evaluate(model, Counting(0)), Error);
  Counting uneven(5);
  uneven.odd_one_out = 3;
  EXPECT_THROW(evaluate(model, uneven, {.batch = 5}), Error);
}

class Recorder final : public Sink {
 public:
  void progress(const Progress& p) override {
    fractions.push_back(p.fraction), units.push_back(p.unit);
  }
  void warning(const std::string&, const std::string&, const std::string&,
               const std::string&) override {}
  std::vector<double> fractions;
  std::vector<std::string> units;
};

TEST(Evaluate, ReportsProgressAndStops) {
  Recorder sink;
  evaluate(model, Counting(5), {.batch = 2, .sink = &sink});
  EXPECT_EQ(sink.fractions, (std::vector<double>{0.4, 0.8, 1.0}));
  EXPECT_EQ(sink.units.back(), "item 5/5");
  StopFlag stop;
  int calls = 0;
  const Model once = [&](const Tensor& batch) {
    ++calls;
    stop.raise();
    return model(batch);
  };
  EXPECT_THROW(evaluate(once, Counting(5), {.batch = 2, .stop = &stop}), Interrupted);
  EXPECT_EQ(calls, 1);
}

// Two inputs, a target, an answer of [N, 2 positions, 3].
class Pairs final : public Dataset {
 public:
  int64_t size() const override { return 5; }
  Sample load(int64_t i) const override {
    Sample sample{Tensor::of<float>({1}, std::vector<float>{static_cast<float>(i)}), -1, name(i)};
    sample.others.push_back(Tensor::of<int64_t>({}, std::vector<int64_t>{i % 2}));
    sample.target = Tensor(DType::kF32, {2, 3});
    return sample;
  }
  std::string digest(int64_t i) const override { return name(i); }
  std::string name(int64_t i) const override { return "item" + std::to_string(i); }
  int64_t label(int64_t) const override { return -1; }
  bool has_targets() const override { return true; }
  const std::vector<std::string>& class_names() const override { return names_; }

 private:
  std::vector<std::string> names_;
};

// Position 0 names class x mod 3, position 1 the second input plus `more`.
Model pairs_model(int64_t more) {
  return Model([more](Model::Inputs in) {
    const int64_t n = in[0].shape()[0];
    Tensor out(DType::kF32, {n, 2, 3});
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      out.as<float>()[6 * i + static_cast<size_t>(in[0].as<float>()[i]) % 3] = 2;
      out.as<float>()[6 * i + 3 + static_cast<size_t>(in[1].as<int64_t>()[i] + more)] = 2;
    }
    return out;
  });
}

TEST(Evaluate, SeveralInputsTargetsAndPositions) {
  const Pairs data;
  const Scores a = evaluate(pairs_model(0), data, {.batch = 2});
  const Scores b = evaluate(pairs_model(1), data, {.batch = 3});
  EXPECT_EQ(a.positions, 2);
  EXPECT_DOUBLE_EQ(agreement(a, b), 50.0);  // all first positions, no second
  EXPECT_DOUBLE_EQ(target_mse(a), 2 * 4.0 / 6);
  // Of each item 8 of energy; half of it moved, which counts twice: 8 / 8.
  EXPECT_NEAR(output_snr_db(a, b), 0.0, 1e-12);
  EXPECT_EQ(a, evaluate(pairs_model(0), data, {.batch = 5}));
}

}  // namespace
}  // namespace repquant
