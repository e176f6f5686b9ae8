#include "repquant/report/table.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace repquant::report {
namespace {

std::string bytes_text(double bytes) {
  static constexpr std::array<const char*, 5> kUnits{"B", "KB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (std::abs(bytes) >= 1000.0 && unit + 1 < kUnits.size()) {
    bytes /= 1000.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.2f} {}", bytes, kUnits[unit]);
}

}  // namespace

std::string number_text(double value, const Column& column) {
  switch (column.style) {
    case NumberStyle::kFixed:
      return fmt::format("{:.{}f}", value, column.digits);
    case NumberStyle::kSigned:
      return fmt::format("{:+.{}f}", value, column.digits);
    case NumberStyle::kScientific:
      return fmt::format("{:.{}e}", value, column.digits);
    case NumberStyle::kBytes:
      return bytes_text(value);
  }
  return {};
}

const std::vector<Column>& score_columns() {
  static const std::vector<Column> kColumns{
      {"top-1 %", "top1"},
      {"95 % interval", "ci_low", "ci_high"},
      {"top-5 %", "top5"},
      {"images", "count", "", NumberStyle::kFixed, 0},
      {"agreement %", "agreement"},
      {"KL, nats", "kl", "", NumberStyle::kFixed, 4},
      {"top-1 \u2212 float", "delta_top1", "", NumberStyle::kSigned},
      {"95 % interval of difference", "delta_ci_low", "delta_ci_high", NumberStyle::kSigned},
      {"size", "bytes", "", NumberStyle::kBytes},
      {"seconds to quantize", "seconds"},
  };
  return kColumns;
}

const std::vector<Column>& layer_columns() {
  static const std::vector<Column> kColumns{
      {"weights, bits", "weight_bits", "", NumberStyle::kFixed, 0},
      {"inputs, bits", "activation_bits", "", NumberStyle::kFixed, 0},
      {"SQNR before, dB", "sqnr_db_before"},
      {"SQNR after, dB", "sqnr_db"},
      {"cosine before", "cosine_before", "", NumberStyle::kFixed, 5},
      {"cosine after", "cosine", "", NumberStyle::kFixed, 5},
      {"output MSE before", "output_mse_before", "", NumberStyle::kScientific},
      {"output MSE after", "output_mse", "", NumberStyle::kScientific},
  };
  return kColumns;
}

std::vector<Column> used_columns(const std::vector<Column>& columns,
                                 const std::vector<TableRow>& rows) {
  std::vector<Column> used;
  for (const Column& column : columns) {
    const bool filled = std::any_of(rows.begin(), rows.end(), [&](const TableRow& row) {
      return row.find(column.key) != nullptr;
    });
    if (filled) used.push_back(column);
  }
  return used;
}

}  // namespace repquant::report
