#include "repquant/reconstruct/clipping.h"

#include <gtest/gtest.h>

namespace repquant::reconstruct {
namespace {

ClippingData example() {
  torch::manual_seed(11);
  ClippingData data;
  data.y = at::randn({512, 12});
  data.y.select(1, 3).mul_(6.0);
  data.y.select(1, 5).sub_(12.0);   // lives on one side of zero
  data.y.select(1, 7).fill_(0.25);  // constant channel
  data.y.masked_fill_(at::rand({512, 12}) > 0.999, 30.0);
  data.weights = {at::randn({24, 12}), at::randn({8, 12})};
  data.weight_spec = {4, Uniform{}, PerChannel{0}, Range{}};
  data.activation_bits = 4;
  data.held_out = 128;
  return data;
}

quantize::ChannelBounds min_max(const ClippingData& data) {
  const at::Tensor low = std::get<0>(data.y.min(0)).contiguous(),
                   high = std::get<0>(data.y.max(0)).contiguous();
  return {{low.data_ptr<float>(), low.data_ptr<float>() + 12},
          {high.data_ptr<float>(), high.data_ptr<float>() + 12}};
}

TEST(DualClipping, GridNeverRaisesTheConsumerError) {
  const ClippingData data = example();
  const quantize::ChannelBounds start = min_max(data);
  const double none = consumer_error(data, start, 0, 384);
  const double symmetric =
      consumer_error(data, clip_grid(data, start, ClipMode::kSymmetric), 0, 384);
  const double dual = consumer_error(data, clip_grid(data, start, ClipMode::kGrid), 0, 384);
  EXPECT_LE(symmetric, none);
  EXPECT_LE(dual, none);
  EXPECT_LT(dual, 0.9 * none);  // the outliers make min-max wasteful
}

TEST(DualClipping, LearningKeepsTheBestHeldOutStep) {
  const ClippingData data = example();
  const quantize::ChannelBounds start = min_max(data);
  const double before = consumer_error(data, start, 384, 512);
  const quantize::ChannelBounds learned = clip_learned(data, start, {60, 5e-2, 256, false, 0});
  EXPECT_LT(consumer_error(data, learned, 384, 512), before);
  const quantize::ChannelBounds unchanged = clip_learned(data, start, {0, 1e-2, 256, false, 0});
  EXPECT_EQ(unchanged.low, start.low);
  EXPECT_EQ(unchanged.high, start.high);
}

TEST(DualClipping, OneSidedChannelsStayInside) {
  const ClippingData data = example();
  const quantize::ChannelBounds start = min_max(data);
  const quantize::ChannelBounds learned = clip_learned(data, start, {40, 1e-2, 256, false, 0});
  const float half = (start.high[5] - start.low[5]) / 2;
  // k sigma(.) < 1.0184: bounds may grow by that much of the half-range.
  EXPECT_GE(learned.low[5], start.low[5] - 0.0184f * half);
  EXPECT_LE(learned.high[5], start.high[5] + 0.0184f * half);
}

}  // namespace
}  // namespace repquant::reconstruct
