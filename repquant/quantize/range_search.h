#pragma once
// Finds ranges from data (quantizers.md, "Range searches"). Ties go to the smaller index, errors
// are reduced in double by chunk in order, so results do not depend on the number of threads.
#include <span>
#include <vector>

#include "repquant/observe/block_walk.h"
#include "repquant/observe/quantile.h"

namespace repquant::quantize {

// P of RepQ-ViT; the wide set adds finer and coarser candidates.
const std::vector<double>& percentiles();
const std::vector<double>& wide_percentiles();

// What one site reads, by chunk. `channels`: last dimension for per-channel statistics, else 1.
observe::DataPass site_pass(observe::BlockWalk& walk, const Site& site);

// Uniform ranges as the spec says: one scale a tensor, or (PerHead) one a head of the last
// dimension, each head searched alone.
QParams min_max_range(observe::BlockWalk& walk, const Site& site, const QuantSpec& spec);
QParams percentile_range(observe::BlockWalk& walk, const Site& site, const QuantSpec& spec,
                         std::span<const double> candidates);
// 100 linear shrink factors of [min, max], squared error from a histogram of 2^15 bins.
QParams mse_range(observe::BlockWalk& walk, const Site& site, const QuantSpec& spec);
// Log format: scale = quantile over the candidates, squared error of the value.
QParams log_percentile_range(observe::BlockWalk& walk, const Site& site, const QuantSpec& spec,
                             std::span<const double> candidates);

// Per-channel bounds before a fold: params.lower and params.scale, one a channel.
struct ChannelBounds {
  std::vector<float> low, high;
};
ChannelBounds channel_min_max(observe::BlockWalk& walk, const Site& site, int64_t channels);
// Per channel the percentile with the least squared error.
ChannelBounds channel_percentiles(observe::BlockWalk& walk, const Site& site, int64_t channels,
                                  int bits, std::span<const double> candidates);
QParams channel_params(const ChannelBounds& bounds, int bits);
// Squared error per channel of the quantizer given by bounds.
std::vector<double> channel_errors(observe::BlockWalk& walk, const Site& site,
                                   const QParams& params);

// Weight rows [N, K]: one scale a row.
QParams weight_min_max(const at::Tensor& weight, const QuantSpec& spec);
QParams weight_percentile(const at::Tensor& weight, const QuantSpec& spec,
                          std::span<const double> candidates);
QParams weight_mse(const at::Tensor& weight, const QuantSpec& spec, ThreadPool& pool);

}  // namespace repquant::quantize
