// Data of models with several inputs, and what answers are compared with.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "repquant/core/artifact.h"
#include "repquant/data/dataset.h"
#include "repquant/data/testing.h"

namespace repquant {
namespace {

using namespace testing;

class NamedInputs : public ::testing::Test {
 protected:
  NamedInputs() {
    for (int64_t i = 0; i < x_.size(); ++i)
      x_.as<float>()[static_cast<size_t>(i)] = 0.5f * static_cast<float>(i);
    for (int64_t i = 0; i < 3; ++i) {
      t_.as<int64_t>()[static_cast<size_t>(i)] = 10 + i;
      y_.as<float>()[static_cast<size_t>(i)] = static_cast<float>(i * i);
    }
  }
  fs::path write(const char* name,
                 const std::vector<std::pair<std::string, const Tensor*>>& arrays) {
    const fs::path path = dir_ / name;
    write_safetensors(path, {}, arrays, false);
    return path;
  }
  TempDir dir_;
  Tensor x_{DType::kF32, {3, 1, 2, 2}}, t_{DType::kI64, {3}}, y_{DType::kF32, {3, 1}};
};

TEST_F(NamedInputs, ComeInTheOrderOfTheModelWhateverTheFile) {
  const fs::path path = write("d.safetensors", {{"a", &t_}, {"x", &x_}, {"noise", &y_}});
  DatasetOptions options;
  options.inputs = {"x", "a"};
  options.targets = {"target", "noise"};
  const auto data = open_dataset(path, options);
  ASSERT_EQ(data->size(), 3);
  EXPECT_TRUE(data->has_targets());
  const Sample sample = data->load(2);
  EXPECT_EQ(sample.input.shape(), (Shape{1, 2, 2}));
  ASSERT_EQ(sample.others.size(), 1u);
  EXPECT_EQ(sample.others[0].shape(), Shape{});
  EXPECT_EQ(sample.others[0].as<int64_t>()[0], 12);
  EXPECT_EQ(sample.target.as<float>()[0], 4.0f);
  const std::vector<int64_t> indices{2, 0};
  const std::vector<Tensor> inputs = load_inputs(*data, indices);
  ASSERT_EQ(inputs.size(), 2u);
  EXPECT_EQ(inputs[0].shape(), (Shape{2, 1, 2, 2}));
  EXPECT_EQ(inputs[1].shape(), Shape{2});
  EXPECT_EQ(inputs[1].as<int64_t>()[0], 12);
  EXPECT_EQ(inputs[1].as<int64_t>()[1], 10);
  // Equal first inputs with other second ones are other items.
  t_.as<int64_t>()[1] = 77;
  const auto other = open_dataset(write("e.safetensors", {{"a", &t_}, {"x", &x_}}), options);
  EXPECT_NE(other->digest(1), data->digest(1));
  EXPECT_EQ(other->digest(2), data->digest(2));
  EXPECT_FALSE(other->has_targets());
}

TEST_F(NamedInputs, ATargetIsNoInput) {
  const auto data = open_dataset(write("d.safetensors", {{"audio", &x_}, {"target", &y_}}));
  EXPECT_EQ(data->load(1).input.shape(), (Shape{1, 2, 2}));
  EXPECT_EQ(data->load(1).target.as<float>()[0], 1.0f);
}

TEST_F(NamedInputs, WhatIsMissingIsNamed) {
  DatasetOptions options;
  options.inputs = {"x", "t"};
  expect_error(ErrorCode::kCorruptFile, "\"t\", an input of the model", [&] {
    open_dataset(write("d.safetensors", {{"x", &x_}, {"u", &t_}}), options);
  });
  expect_error(ErrorCode::kCorruptFile, "\"x\", an input of the model", [&] {
    open_dataset(write("e.safetensors", {{"input", &x_}, {"t", &t_}}), options);
  });
  const Tensor two(DType::kI64, {2});
  expect_error(ErrorCode::kCorruptFile, "\"t\" of 3 items", [&] {
    open_dataset(write("f.safetensors", {{"x", &x_}, {"t", &two}}), options);
  });
  expect_error(ErrorCode::kInvalidArgument, "2 inputs",
               [&] { open_dataset(dir_.path(), options); });
}

}  // namespace
}  // namespace repquant
