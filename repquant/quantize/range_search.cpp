#include "repquant/quantize/range_search.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <mutex>

#include "repquant/core/format/log.h"
#include "repquant/core/format/uniform.h"
#include "repquant/quantize/fake_quantize.h"
#include "repquant/quantize/kernels.h"

namespace repquant::quantize {
namespace {

std::span<const float> span_of(const at::Tensor& t) {
  return {t.data_ptr<float>(), static_cast<size_t>(t.numel())};
}

int64_t head_count(const QuantSpec& spec) {
  const auto* heads = std::get_if<PerHead>(&spec.granularity);
  return heads != nullptr ? heads->heads : 1;
}

// The values of each head, one head after the other.
at::Tensor heads_apart(const at::Tensor& x, int64_t heads) {
  if (heads == 1) return x.contiguous();
  return x.reshape({-1, heads, x.size(-1) / heads}).transpose(0, 1).contiguous();
}

std::span<const float> head_of(const at::Tensor& apart, int64_t heads, int64_t head) {
  const int64_t each = apart.numel() / heads;
  return {apart.data_ptr<float>() + head * each, static_cast<size_t>(each)};
}

// Sum over chunks, in chunk order, of a function of the site's values.
std::vector<double> chunk_sums(observe::BlockWalk& walk, const Site& site, size_t width,
                               const std::function<void(const at::Tensor&, double*)>& fn) {
  std::vector<std::vector<double>> parts(static_cast<size_t>(walk.chunks()),
                                         std::vector<double>(width, 0.0));
  walk.visit(site, [&](int64_t chunk, const at::Tensor& tensor) {
    fn(tensor.contiguous(), parts[static_cast<size_t>(chunk)].data());
  });
  std::vector<double> total(width, 0.0);
  for (const auto& part : parts) {
    for (size_t i = 0; i < width; ++i) total[i] += part[i];
  }
  return total;
}

QParams uniform_params(const QuantSpec& spec, double low, double high) {
  const Uniform& format = std::get<Uniform>(spec.format);
  QParams params{spec, {}, {}, {}};
  if (format.symmetric) {
    params.scale = {
        symmetric_scale(std::max(std::abs(low), std::abs(high)), spec.bits, format.narrow)};
    params.zero_point = {0};
  } else {
    const UniformParams found = uniform_from_range(low, high, spec.bits, format.include_zero);
    params.scale = {found.scale};
    params.zero_point = {found.zero};
  }
  return params;
}

double span_error(std::span<const float> x, const QParams& params) {
  const auto n = static_cast<int64_t>(x.size());
  if (const Uniform* uniform = std::get_if<Uniform>(&params.spec.format)) {
    const CodeRange range = code_range(params.spec.bits, *uniform);
    const int32_t z = params.zero_point[0];
    return error_uniform(x.data(), n, inverse_scale(params.scale[0]), params.scale[0],
                         static_cast<float>(range.lo - z), static_cast<float>(range.hi - z));
  }
  const Log& log = std::get<Log>(params.spec.format);
  const LogGrid grid = log_grid(params, 0);
  return error_log(x.data(), n, static_cast<float>(log.shift), grid.thresholds.data(),
                   static_cast<int>(grid.thresholds.size()), grid.levels.data());
}

// The parameters of all heads, or of all rows of a weight, as one.
QParams joined(const QuantSpec& spec, const std::vector<QParams>& parts) {
  QParams params{spec, {}, {}, {}};
  for (const QParams& part : parts) {
    params.scale.push_back(part.scale[0]);
    params.zero_point.insert(params.zero_point.end(), part.zero_point.begin(),
                             part.zero_point.end());
  }
  return params;
}

// For each head the candidate with the least squared error; candidates[head] are of equal number.
QParams best_of(observe::BlockWalk& walk, const Site& site, const QuantSpec& spec,
                const std::vector<std::vector<QParams>>& candidates) {
  const auto heads = static_cast<int64_t>(candidates.size());
  const size_t each = candidates[0].size();
  const std::vector<double> errors =
      chunk_sums(walk, site, candidates.size() * each, [&](const at::Tensor& tensor, double* out) {
        const at::Tensor x = heads_apart(tensor, heads);
        for (int64_t h = 0; h < heads; ++h) {
          for (const QParams& candidate : candidates[static_cast<size_t>(h)])
            *out++ = span_error(head_of(x, heads, h), candidate);
        }
      });
  std::vector<QParams> best;
  for (size_t h = 0; h < candidates.size(); ++h) {
    const auto first = errors.begin() + static_cast<ptrdiff_t>(h * each);
    const auto least = std::min_element(first, first + static_cast<ptrdiff_t>(each));
    best.push_back(candidates[h][static_cast<size_t>(least - first)]);
  }
  return joined(spec, best);
}

// Counts of values in equal bins between the extremes.
struct Histogram {
  static constexpr int kBins = 1 << 15;
  double low, high;
  std::vector<uint64_t> counts = std::vector<uint64_t>(kBins, 0);

  double width() const { return (high - low) / kBins; }
  void add(std::span<const float> x) {
    if (!(width() > 0)) return;
    add_histogram(x.data(), static_cast<int64_t>(x.size()), static_cast<float>(low),
                  static_cast<float>(1.0 / width()), kBins, counts.data());
  }
  void add(const Histogram& other) {
    for (size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
  }
  // Squared error of one quantizer, values taken at bin centres.
  double error(const QParams& params) const {
    const CodeRange range = code_range(params.spec.bits, std::get<Uniform>(params.spec.format));
    const double s = params.scale[0], z = params.zero_point[0], bin = width();
    double error = 0.0;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == 0) continue;
      const double x = low + (static_cast<double>(i) + 0.5) * bin;
      const double q = std::clamp(std::nearbyint(x / s), range.lo - z, range.hi - z);
      error += static_cast<double>(counts[i]) * (x - s * q) * (x - s * q);
    }
    return error;
  }
};

QParams least_error_shrink(const Histogram& histogram, const QuantSpec& spec) {
  QParams best = uniform_params(spec, histogram.low, histogram.high);
  double best_error = histogram.error(best);
  for (int step = 99; step >= 20; --step) {
    const QParams candidate =
        uniform_params(spec, histogram.low * step / 100.0, histogram.high * step / 100.0);
    const double error = histogram.error(candidate);
    if (error < best_error) {
      best_error = error;
      best = candidate;
    }
  }
  return best;
}

// The extremes of each head.
std::vector<std::pair<double, double>> min_max(observe::BlockWalk& walk, const Site& site,
                                               int64_t heads) {
  using Extremes = std::vector<std::pair<double, double>>;
  std::vector<Extremes> parts(static_cast<size_t>(walk.chunks()));
  walk.visit(site, [&](int64_t chunk, const at::Tensor& tensor) {
    const at::Tensor x = heads_apart(tensor, heads).reshape({heads, -1});
    for (int64_t h = 0; h < heads; ++h) {
      const auto [low, high] = at::aminmax(x.select(0, h));
      parts[static_cast<size_t>(chunk)].emplace_back(low.item<float>(), high.item<float>());
    }
  });
  Extremes result = parts.at(0);
  for (const Extremes& part : parts) {
    for (size_t h = 0; h < result.size(); ++h) {
      const auto [low, high] = part[h];
      if (!std::isfinite(low) || !std::isfinite(high)) {
        throw Error(ErrorCode::kCorruptFile,
                    "observe: NaN or infinity in the calibration activations");
      }
      result[h] = {std::min(result[h].first, low), std::max(result[h].second, high)};
    }
  }
  return result;
}

// The site with its heads as channels: values[i] belongs to head i % heads.
observe::DataPass head_pass(observe::BlockWalk& walk, const Site& site, int64_t heads) {
  if (heads == 1) return site_pass(walk, site);
  return {walk.chunks(),
          [&walk, site, heads](const std::function<void(int64_t, std::span<const float>)>& fn) {
            walk.visit(site, [&](int64_t chunk, const at::Tensor& tensor) {
              const at::Tensor x = heads_apart(tensor, heads).reshape({heads, -1}).t().contiguous();
              fn(chunk, span_of(x));
            });
          }};
}

std::vector<float> sorted_quantiles(std::span<const float> sorted, std::span<const double> p) {
  std::vector<float> result;
  for (const double q : p) {
    const double position = q * static_cast<double>(sorted.size() - 1);
    const auto low = static_cast<size_t>(std::floor(position));
    const size_t high = std::min(low + 1, sorted.size() - 1);
    const double fraction = position - static_cast<double>(low);
    result.push_back(
        static_cast<float>(sorted[low] + fraction * (static_cast<double>(sorted[high]) -
                                                     static_cast<double>(sorted[low]))));
  }
  return result;
}

// Puts in place what sorted_quantiles reads for `p`, a mirrored list.
void sort_tails(std::vector<float>& values, std::span<const double> p) {
  const double inner = *std::min_element(
      p.begin(), p.end(), [](double a, double b) { return std::abs(a - 0.5) < std::abs(b - 0.5); });
  const auto tail = static_cast<ptrdiff_t>(
      std::floor(std::min(inner, 1 - inner) * static_cast<double>(values.size() - 1)) + 3);
  if (4 * tail >= static_cast<ptrdiff_t>(values.size())) {
    std::sort(values.begin(), values.end());
    return;
  }
  std::partial_sort(values.begin(), values.begin() + tail, values.end());
  std::partial_sort(values.rbegin(), values.rbegin() + tail, values.rend() - tail,
                    std::greater<>());
}

std::vector<double> mirrored(std::span<const double> candidates) {
  std::vector<double> both(candidates.begin(), candidates.end());
  for (const double p : candidates) both.push_back(1.0 - p);
  return both;
}

}  // namespace

const std::vector<double>& percentiles() {
  static const std::vector<double> set{0.999, 0.9999, 0.99999};
  return set;
}

const std::vector<double>& wide_percentiles() {
  static const std::vector<double> set{0.97,   0.98,   0.99,    0.995,   0.999, 0.9995,
                                       0.9997, 0.9999, 0.99995, 0.99999, 1.0};
  return set;
}

observe::DataPass site_pass(observe::BlockWalk& walk, const Site& site) {
  return {walk.chunks(),
          [&walk, site](const std::function<void(int64_t, std::span<const float>)>& fn) {
            walk.visit(site, [&](int64_t chunk, const at::Tensor& tensor) {
              const at::Tensor x = tensor.contiguous();
              fn(chunk, span_of(x));
            });
          }};
}

QParams min_max_range(observe::BlockWalk& walk, const Site& site, const QuantSpec& spec) {
  std::vector<QParams> heads;
  for (const auto& [low, high] : min_max(walk, site, head_count(spec)))
    heads.push_back(uniform_params(spec, low, high));
  return joined(spec, heads);
}

QParams percentile_range(observe::BlockWalk& walk, const Site& site, const QuantSpec& spec,
                         std::span<const double> candidates) {
  const int64_t heads = head_count(spec);
  const std::vector<double> p = mirrored(candidates);
  const std::vector<float> bounds =
      observe::exact_quantiles(head_pass(walk, site, heads), heads, p);
  std::vector<std::vector<QParams>> options(static_cast<size_t>(heads));
  for (size_t h = 0; h < options.size(); ++h) {
    const float* of_head = bounds.data() + h * p.size();
    for (size_t i = 0; i < candidates.size(); ++i)
      options[h].push_back(uniform_params(spec, of_head[candidates.size() + i], of_head[i]));
  }
  return best_of(walk, site, spec, options);
}

QParams mse_range(observe::BlockWalk& walk, const Site& site, const QuantSpec& spec) {
  const int64_t heads = head_count(spec);
  std::vector<Histogram> histograms;
  for (const auto& [low, high] : min_max(walk, site, heads)) histograms.push_back({low, high});
  std::mutex mutex;
  walk.visit(site, [&](int64_t, const at::Tensor& tensor) {
    const at::Tensor x = heads_apart(tensor, heads);
    for (int64_t h = 0; h < heads; ++h) {
      Histogram& whole = histograms[static_cast<size_t>(h)];
      Histogram part{whole.low, whole.high};
      part.add(head_of(x, heads, h));
      const std::lock_guard lock(mutex);  // whole numbers: the order of chunks does not show
      whole.add(part);
    }
  });
  std::vector<QParams> best;
  for (const Histogram& histogram : histograms) best.push_back(least_error_shrink(histogram, spec));
  return joined(spec, best);
}

QParams log_percentile_range(observe::BlockWalk& walk, const Site& site, const QuantSpec& spec,
                             std::span<const double> candidates) {
  const double shift = std::get<Log>(spec.format).shift;
  std::vector<double> p(candidates.begin(), candidates.end());
  const std::vector<float> bounds = observe::exact_quantiles(site_pass(walk, site), 1, p);
  std::vector<QParams> options;
  for (const float bound : bounds) {
    const double scale = std::max(static_cast<double>(bound) + shift, 1e-8);
    options.push_back({spec, {static_cast<float>(scale)}, {}, {}});
  }
  return best_of(walk, site, spec, {options});
}

ChannelBounds channel_min_max(observe::BlockWalk& walk, const Site& site, int64_t channels) {
  std::vector<std::pair<at::Tensor, at::Tensor>> parts(static_cast<size_t>(walk.chunks()));
  walk.visit(site, [&](int64_t chunk, const at::Tensor& tensor) {
    const at::Tensor x = tensor.reshape({-1, channels});
    parts[static_cast<size_t>(chunk)] = {std::get<0>(x.min(0)), std::get<0>(x.max(0))};
  });
  at::Tensor low = parts.at(0).first, high = parts.at(0).second;
  for (const auto& [l, h] : parts) {
    low = at::minimum(low, l);
    high = at::maximum(high, h);
  }
  if (!at::isfinite(low).all().item<bool>() || !at::isfinite(high).all().item<bool>()) {
    throw Error(ErrorCode::kCorruptFile, "observe: NaN or infinity in the calibration activations");
  }
  const std::span<const float> l = span_of(low), h = span_of(high);
  return {{l.begin(), l.end()}, {h.begin(), h.end()}};
}

QParams channel_params(const ChannelBounds& bounds, int bits) {
  QuantSpec spec{bits, Uniform{false, true, false, false}, PerChannel{-1}, Range{}};
  QParams params{spec, {}, {}, {}};
  for (size_t c = 0; c < bounds.low.size(); ++c) {
    const UniformParams found = uniform_from_range(bounds.low[c], bounds.high[c], bits, false);
    params.scale.push_back(found.scale);
    params.lower.push_back(bounds.low[c]);
  }
  return params;
}

std::vector<double> channel_errors(observe::BlockWalk& walk, const Site& site,
                                   const QParams& params) {
  const size_t channels = params.scale.size();
  std::vector<float> inv(channels);
  for (size_t c = 0; c < channels; ++c) inv[c] = inverse_scale(params.scale[c]);
  const auto top = static_cast<float>((1 << params.spec.bits) - 1);
  return chunk_sums(walk, site, channels, [&](const at::Tensor& x, double* errors) {
    const auto count = static_cast<int64_t>(channels);
    error_channels(x.data_ptr<float>(), x.numel() / count, count, inv.data(), params.scale.data(),
                   params.lower.data(), top, errors);
  });
}

ChannelBounds channel_percentiles(observe::BlockWalk& walk, const Site& site, int64_t channels,
                                  int bits, std::span<const double> candidates) {
  const std::vector<double> p = mirrored(candidates);
  const std::vector<float> found = observe::exact_quantiles(site_pass(walk, site), channels, p);
  const auto width = static_cast<size_t>(channels);
  ChannelBounds best;
  std::vector<double> best_error(width, std::numeric_limits<double>::infinity());
  best.low.resize(width);
  best.high.resize(width);
  for (size_t i = 0; i < candidates.size(); ++i) {
    ChannelBounds bounds;
    for (size_t c = 0; c < width; ++c) {
      bounds.high.push_back(found[c * p.size() + i]);
      bounds.low.push_back(found[c * p.size() + candidates.size() + i]);
    }
    const std::vector<double> errors = channel_errors(walk, site, channel_params(bounds, bits));
    for (size_t c = 0; c < width; ++c) {
      if (errors[c] < best_error[c]) {
        best_error[c] = errors[c];
        best.low[c] = bounds.low[c];
        best.high[c] = bounds.high[c];
      }
    }
  }
  return best;
}

QParams weight_min_max(const at::Tensor& weight, const QuantSpec& spec) {
  const at::Tensor rows = weight.reshape({weight.size(0), -1});
  const at::Tensor low = std::get<0>(rows.min(1)).contiguous();
  const at::Tensor high = std::get<0>(rows.max(1)).contiguous();
  std::vector<QParams> found;
  for (int64_t r = 0; r < rows.size(0); ++r) {
    found.push_back(uniform_params(spec, low.data_ptr<float>()[r], high.data_ptr<float>()[r]));
  }
  return joined(spec, found);
}

QParams weight_percentile(const at::Tensor& weight, const QuantSpec& spec,
                          std::span<const double> candidates) {
  const at::Tensor rows = weight.reshape({weight.size(0), -1}).contiguous();
  const std::vector<double> p = mirrored(candidates);
  std::vector<QParams> found;
  for (int64_t r = 0; r < rows.size(0); ++r) {
    const std::span<const float> row(rows.data_ptr<float>() + r * rows.size(1),
                                     static_cast<size_t>(rows.size(1)));
    std::vector<float> sorted(row.begin(), row.end());
    sort_tails(sorted, p);
    const std::vector<float> bounds = sorted_quantiles(sorted, p);
    QParams best;
    double best_error = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < candidates.size(); ++i) {
      const QParams option = uniform_params(spec, bounds[candidates.size() + i], bounds[i]);
      const double error = span_error(row, option);
      if (error < best_error) {
        best_error = error;
        best = option;
      }
    }
    found.push_back(best);
  }
  return joined(spec, found);
}

QParams weight_mse(const at::Tensor& weight, const QuantSpec& spec, ThreadPool& pool) {
  const at::Tensor rows = weight.reshape({weight.size(0), -1}).contiguous();
  std::vector<QParams> found(static_cast<size_t>(rows.size(0)));
  for_each_index(pool, rows.size(0), [&](int64_t r) {
    const std::span<const float> row(rows.data_ptr<float>() + r * rows.size(1),
                                     static_cast<size_t>(rows.size(1)));
    const auto [low, high] = std::minmax_element(row.begin(), row.end());
    QParams best = uniform_params(spec, *low, *high);
    double best_error = span_error(row, best);
    for (int step = 99; step >= 40; --step) {
      const QParams option = uniform_params(spec, *low * step / 100.0, *high * step / 100.0);
      const double error = span_error(row, option);
      if (error < best_error) {
        best_error = error;
        best = option;
      }
    }
    found[static_cast<size_t>(r)] = best;
  });
  return joined(spec, found);
}

}  // namespace repquant::quantize
