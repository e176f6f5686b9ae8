#include "repquant/report/charts.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "repquant/report/html.h"

namespace repquant::report {
namespace {

// Pixels left of a horizontal plot for labels and right of it for values; class "plotted" has them
// as margins, so that percentages are of the plot alone.
constexpr int kLabelWidth = 150, kValueWidth = 44;
constexpr int kAxisHeight = 16;  // below a plot of class "gutter", which has its values at the left
constexpr size_t kLabelBytes = 23;
constexpr size_t kMostPoints = 512;  // of a line across channels

std::string open_svg(int height, const std::string& title, const std::string& description,
                     const std::string& style = "chart") {
  return fmt::format(
      "<svg class=\"{}\" role=\"img\" width=\"100%\" height=\"{}\"><title>{}</title>"
      "<desc>{}</desc>",
      style, height, escape_html(title), escape_html(description));
}

// ---- horizontal charts --------------------------------------------------------------------------
struct Axis {
  double low = 0, high = 1, step = 1;
  double percent(double value) const {
    return 100.0 * std::clamp((value - low) / (high - low), 0.0, 1.0);
  }
};

// About five ticks at 1, 2 or 5 times a power of ten; bounds are ticks.
Axis axis_over(double low, double high) {
  const double width = std::max(high - low, 1e-9 * std::max(1.0, std::abs(high)));
  const double raw = width / 5, power = std::pow(10.0, std::floor(std::log10(raw)));
  Axis axis;
  axis.step = 10 * power;
  for (const double times : {5.0, 2.0, 1.0}) {
    if (raw <= times * power) axis.step = times * power;
  }
  axis.low = std::floor(low / axis.step) * axis.step;
  axis.high = std::ceil(high / axis.step) * axis.step;
  if (axis.high <= axis.low) axis.high = axis.low + axis.step;
  return axis;
}

std::string grid(const Axis& axis, int top, int bottom, const std::string& unit) {
  std::string svg;
  const int ticks = static_cast<int>(std::lround((axis.high - axis.low) / axis.step));
  for (int i = 0; i <= ticks; ++i) {
    const double value = axis.low + i * axis.step, x = axis.percent(value);
    svg +=
        fmt::format("<line class=\"grid\" x1=\"{0:.2f}%\" x2=\"{0:.2f}%\" y1=\"{1}\" y2=\"{2}\"/>",
                    x, top, bottom);
    svg += fmt::format(
        "<text class=\"tick\" x=\"{:.2f}%\" y=\"{}\" text-anchor=\"middle\">{:g}</text>", x,
        top - 5, std::abs(value) < axis.step * 1e-6 ? 0.0 : value);
  }
  svg += fmt::format(
      "<text class=\"tick\" x=\"100%\" dx=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
      kValueWidth, top - 5, unit);
  return svg;
}

std::string label(const std::string& name, int y) {
  const std::string shown = shortened(name, kLabelBytes);
  return fmt::format("<text class=\"label\" x=\"{}\" y=\"{}\">{}<title>{}</title></text>",
                     -kLabelWidth, y, escape_html(shown), escape_html(name));
}

std::string value_text(const std::string& value, const std::string& style, int y) {
  return fmt::format(
      "<text class=\"{}\" x=\"100%\" dx=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", style,
      kValueWidth, y, value);
}

std::string bar(const Axis& axis, double value, int y, int height, const std::string& style,
                const std::string& tip) {
  const double zero = axis.percent(0), end = axis.percent(value);
  return fmt::format(
      "<rect class=\"{}\" x=\"{:.2f}%\" y=\"{}\" width=\"{:.2f}%\" height=\"{}\" rx=\"1.5\">"
      "<title>{}</title></rect>",
      style, std::min(zero, end), y, std::max(std::abs(end - zero), 0.15), height,
      escape_html(tip));
}

// The three lowest layers are what to look at first.
double third_lowest(const std::vector<TableRow>& layers) {
  std::vector<double> values;
  for (const TableRow& row : layers) {
    if (const Number* after = row.find("sqnr_db")) values.push_back(after->value);
  }
  if (values.size() < 6) return -INFINITY;
  std::nth_element(values.begin(), values.begin() + 2, values.end());
  return values[2];
}

// ---- lines across channels ----------------------------------------------------------------------
struct Scale {
  double low, high;                // as shown, with margins
  double lowest = 0, highest = 0;  // of the data
  double y(double value) const { return 100.0 * (high - value) / (high - low); }
};

Scale scale_over(std::initializer_list<const std::vector<double>*> lines, double margins) {
  Scale scale{0, 0, 0, 0};  // zero is always shown
  for (const auto* line : lines) {
    for (const double value : *line) {
      scale.low = std::min(scale.low, value);
      scale.high = std::max(scale.high, value);
    }
  }
  const double margin = std::max(margins * (scale.high - scale.low), 1e-30);
  return {scale.low - margin, scale.high + margin, scale.low, scale.high};
}

// Many channels: the extreme of each group, so that no outlier is lost.
std::vector<double> thinned(const std::vector<double>& line, bool lowest) {
  if (line.size() <= kMostPoints) return line;
  std::vector<double> points;
  for (size_t i = 0; i < kMostPoints; ++i) {
    const auto first = line.begin() + static_cast<ptrdiff_t>(i * line.size() / kMostPoints);
    const auto last = line.begin() + static_cast<ptrdiff_t>((i + 1) * line.size() / kMostPoints);
    points.push_back(lowest ? *std::min_element(first, last) : *std::max_element(first, last));
  }
  return points;
}

// A value holds across its channel: steps, not slopes.
std::string steps(const std::vector<double>& line, const Scale& scale, bool leftwards) {
  std::string path;
  for (size_t i = 0; i < line.size(); ++i) {
    const size_t at = leftwards ? line.size() - 1 - i : i;
    path += fmt::format("V{:.2f}H{}", scale.y(line[at]), leftwards ? at : at + 1);
  }
  return path;
}

std::string area(const std::vector<double>& low, const std::vector<double>& high,
                 const Scale& scale, const std::string& style) {
  const auto top = thinned(high, false), bottom = thinned(low, true);
  return fmt::format("<path class=\"{}\" d=\"M0 {:.2f}{}{}Z\"/>", style, scale.y(top[0]),
                     steps(top, scale, false), steps(bottom, scale, true));
}

std::string outline(const std::vector<double>& line, bool lowest, const Scale& scale) {
  const auto points = thinned(line, lowest);
  return fmt::format("<path class=\"clip-line\" d=\"M0 {:.2f}{}\"/>", scale.y(points[0]),
                     steps(points, scale, false));
}

std::string gutter_text(const std::string& text, double y) {
  return fmt::format("<text class=\"tick\" x=\"-5\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", y,
                     text);
}

std::string axis_below(int height, const std::string& first, const std::string& what,
                       const std::string& last) {
  return fmt::format(
      "<text class=\"tick\" x=\"0\" y=\"{0}\">{1}</text>"
      "<text class=\"tick\" x=\"50%\" y=\"{0}\" text-anchor=\"middle\">{2}</text>"
      "<text class=\"tick\" x=\"100%\" y=\"{0}\" text-anchor=\"end\">{3}</text>",
      height + 12, first, what, last);
}

// The plot stretches with the page, the letters beside it do not.
std::string stretched(int height, size_t width, const std::string& inside) {
  return fmt::format(
      "<rect class=\"field\" width=\"100%\" height=\"{0}\"/>"
      "<svg width=\"100%\" height=\"{0}\" viewBox=\"0 0 {1} 100\" preserveAspectRatio=\"none\">"
      "<rect class=\"field\" width=\"{1}\" height=\"100\"/>{2}</svg>",
      height, width, inside);
}

std::string plot(int height, size_t channels, const std::string& inside, const Scale& scale,
                 bool channel_axis) {
  const size_t width = std::min(channels, kMostPoints);
  std::string svg = stretched(
      height, width,
      inside + fmt::format("<path class=\"zero\" d=\"M0 {:.2f}H{}\"/>", scale.y(0), width));
  const auto middle = [&](double value) { return scale.y(value) / 100 * height + 4; };
  const auto tick = [&](double value) {
    return gutter_text(fmt::format("{:.3g}", value), middle(value));
  };
  svg += tick(scale.highest);
  if (scale.lowest < scale.highest) svg += tick(scale.lowest);
  constexpr double kApart = 12;  // pixels between two lines of letters
  if (middle(0) - middle(scale.highest) > kApart && middle(scale.lowest) - middle(0) > kApart)
    svg += tick(0);
  return channel_axis ? svg + axis_below(height, "0", "channel", std::to_string(channels - 1))
                      : svg;
}

std::vector<double> sorted_widths(const std::vector<double>& low, const std::vector<double>& high) {
  std::vector<double> widths;
  for (size_t i = 0; i < low.size(); ++i) widths.push_back(high[i] - low[i]);
  std::sort(widths.begin(), widths.end());
  return widths;
}

std::string width_text(const std::string& what, const std::vector<double>& low,
                       const std::vector<double>& high) {
  if (low.empty()) return {};
  const std::vector<double> widths = sorted_widths(low, high);
  return fmt::format("{}: widest channel {:.3g}, median {:.3g}. ", what, widths.back(),
                     widths[widths.size() / 2]);
}

}  // namespace

std::string shortened(const std::string& text, size_t limit) {
  if (text.size() <= limit) return text;
  const auto continues = [&](size_t at) {
    return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
  };
  size_t head = limit / 2, tail = text.size() - (limit - head - 1);
  while (head > 0 && continues(head)) --head;
  while (tail < text.size() && continues(tail)) ++tail;
  return text.substr(0, head) + "\u2026" + text.substr(tail);
}

std::string accuracy_chart(const std::vector<TableRow>& rows) {
  constexpr int kRow = 26, kTop = 24;
  double low = INFINITY, high = -INFINITY;
  std::vector<const TableRow*> shown;
  for (const TableRow& row : rows) {
    if (row.find("top1") == nullptr) continue;
    shown.push_back(&row);
    for (const char* key : {"top1", "ci_low", "ci_high"}) {
      const Number* n = row.find(key);
      if (n != nullptr) low = std::min(low, n->value), high = std::max(high, n->value);
    }
  }
  if (shown.empty()) return {};
  const Axis axis = axis_over(std::max(low, 0.0), high);
  const int bottom = kTop + kRow * static_cast<int>(shown.size());
  std::string inside = grid(axis, kTop, bottom, "%"), beside;
  for (size_t i = 0; i < shown.size(); ++i) {
    const TableRow& row = *shown[i];
    const double top1 = row.find("top1")->value;
    const int y = kTop + kRow * static_cast<int>(i) + kRow / 2;
    beside += label(row.name, y + 4) + value_text(fmt::format("{:.2f}", top1), "value", y + 4);
    const Number *from = row.find("ci_low"), *to = row.find("ci_high");
    if (from != nullptr && to != nullptr) {
      inside +=
          fmt::format("<line class=\"whisker\" x1=\"{:.2f}%\" x2=\"{:.2f}%\" y1=\"{}\" y2=\"{}\"/>",
                      axis.percent(from->value), axis.percent(to->value), y, y);
    }
    inside += fmt::format(
        "<circle class=\"dot\" cx=\"{:.2f}%\" cy=\"{}\" r=\"5\"><title>{}: {:.2f} %"
        "</title></circle>",
        axis.percent(top1), y, escape_html(row.name), top1);
  }
  return open_svg(bottom + 4, "Top-1 accuracy",
                  fmt::format("{} models, {:.2f} to {:.2f} percent, with 95 percent intervals",
                              shown.size(), low, high),
                  "chart plotted") +
         inside + beside + "</svg>";
}

std::string sqnr_chart(const std::vector<TableRow>& layers) {
  constexpr int kTop = 24;
  double low = 0, high = 1;
  int shown = 0;
  bool any_before = false;
  for (const TableRow& row : layers) {
    const Number *before = row.find("sqnr_db_before"), *after = row.find("sqnr_db");
    shown += before != nullptr || after != nullptr ? 1 : 0;
    any_before = any_before || before != nullptr;
    for (const Number* n : {before, after}) {
      if (n != nullptr) low = std::min(low, n->value), high = std::max(high, n->value);
    }
  }
  if (shown == 0) return {};
  const Axis axis = axis_over(low, high);
  const double worst = third_lowest(layers);
  const int height = any_before ? 20 : 17, bottom = kTop + height * shown;
  std::string inside = grid(axis, kTop, bottom, "dB"), beside;
  int y = kTop;
  for (const TableRow& row : layers) {
    const Number *before = row.find("sqnr_db_before"), *after = row.find("sqnr_db");
    if (before == nullptr && after == nullptr) continue;
    beside += label(row.name, y + height / 2 + 4);
    if (before != nullptr) {
      inside += bar(axis, before->value, y + 3, 4, "before",
                    fmt::format("{}: before {:.2f} dB", row.name, before->value));
    }
    if (after != nullptr) {
      const bool marked = after->value <= worst;
      inside += bar(axis, after->value, y + (any_before ? 8 : 3), any_before ? 9 : 11,
                    marked ? "after worst" : "after",
                    fmt::format("{}: after {:.2f} dB", row.name, after->value));
      beside += value_text(fmt::format("{:.1f}", after->value), marked ? "value strong" : "value",
                           y + height / 2 + 4);
    }
    y += height;
  }
  return open_svg(
             bottom + 4, "SQNR by layer",
             fmt::format("{} layers, signal-to-quantization-noise ratio in dB, higher is better",
                         shown),
             "chart plotted") +
         inside + beside + "</svg>";
}

double widest_to_median(const std::vector<double>& low, const std::vector<double>& high) {
  const std::vector<double> widths = sorted_widths(low, high);
  const double median = widths.empty() ? 0 : widths[widths.size() / 2];
  return median > 0 ? widths.back() / median : 0;
}

std::string range_chart_before(const ChannelRanges& r) {
  if (r.before_low.empty() && r.clip_low.empty()) return {};
  constexpr int kHeight = 110;
  const Scale scale = scale_over({&r.before_low, &r.before_high, &r.clip_low, &r.clip_high}, 0.04);
  std::string inside;
  if (!r.before_low.empty()) inside += area(r.before_low, r.before_high, scale, "range-before");
  if (!r.clip_low.empty()) {
    inside += outline(r.clip_low, true, scale) + outline(r.clip_high, false, scale);
  }
  const size_t channels = std::max(r.before_low.size(), r.clip_low.size());
  const bool axis = r.folded_low.empty();  // else below the chart that follows
  return open_svg(axis ? kHeight + kAxisHeight : kHeight,
                  r.norm + ": channel ranges before the fold",
                  width_text("measured", r.before_low, r.before_high) +
                      width_text("clipped", r.clip_low, r.clip_high),
                  "chart gutter") +
         plot(kHeight, channels, inside, scale, axis) + "</svg>";
}

std::string range_chart_folded(const ChannelRanges& r) {
  if (r.folded_low.empty()) return {};
  constexpr int kHeight = 92;
  const Scale scale = scale_over({&r.folded_low, &r.folded_high}, 0.2);
  return open_svg(kHeight + kAxisHeight, r.norm + ": channel ranges after the fold",
                  width_text("folded", r.folded_low, r.folded_high), "chart gutter") +
         plot(kHeight, r.folded_low.size(),
              area(r.folded_low, r.folded_high, scale, "range-folded"), scale, true) +
         "</svg>";
}

int64_t codes_used(const CodeHistogram& histogram) {
  return std::count_if(histogram.counts.begin(), histogram.counts.end(),
                       [](double count) { return count > 0; });
}

double entropy_bits(const CodeHistogram& histogram) {
  double total = 0, entropy = 0;
  for (const double count : histogram.counts) total += count;
  for (const double count : histogram.counts) {
    if (count > 0) entropy -= count / total * std::log2(count / total);
  }
  return entropy;
}

std::string histogram_chart(const CodeHistogram& histogram, const std::string& what) {
  constexpr int kHeight = 72;
  const size_t n = histogram.counts.size();
  double most = 0, total = 0;
  for (const double count : histogram.counts) most = std::max(most, count), total += count;
  std::string bars;
  const bool tips = n <= 32;
  const double width = n <= 64 ? 0.86 : 1.0;
  for (size_t i = 0; i < n; ++i) {
    const double count = histogram.counts[i];
    if (count <= 0) continue;
    const double height = std::max(96.0 * count / most, 1.0);
    bars +=
        fmt::format("<rect class=\"code\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{}\" height=\"{:.2f}\"",
                    static_cast<double>(i) + (1 - width) / 2, 100 - height, width, height);
    bars += tips ? fmt::format("><title>code {}: {:.2f} %</title></rect>",
                               histogram.low + static_cast<int64_t>(i), 100 * count / total)
                 : std::string("/>");
  }
  const std::string description =
      fmt::format("codes {} to {}, {} of {} used, entropy {:.2f} bits", histogram.low,
                  histogram.low + static_cast<int64_t>(n) - 1, codes_used(histogram), n,
                  entropy_bits(histogram));
  const int64_t last = histogram.low + static_cast<int64_t>(n) - 1;
  return open_svg(kHeight + kAxisHeight, histogram.layer + ": " + what, description,
                  "chart gutter") +
         stretched(kHeight, n, bars) +
         gutter_text(fmt::format("{:.2g} %", total > 0 ? 100 * most / total : 0),
                     0.04 * kHeight + 7) +
         gutter_text("0", kHeight) +
         axis_below(kHeight, std::to_string(histogram.low), "code", std::to_string(last)) +
         "</svg>";
}

}  // namespace repquant::report
