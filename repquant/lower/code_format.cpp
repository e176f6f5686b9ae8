#include "repquant/lower/code_format.h"

#include <algorithm>
#include <cmath>

#include "repquant/core/error.h"
#include "repquant/core/format/log.h"
#include "repquant/core/format/uniform.h"

namespace repquant::lowering {
namespace {

void check_scales(const QParams& params, const std::string& subject) {
  for (const float s : params.scale) {
    if (!(s > 0.0f) || !std::isfinite(s)) {
      throw Error(
          ErrorCode::kInternal,
          "lower: " + subject + ": expected finite positive scales, got " + std::to_string(s));
    }
  }
}

void check_granularity(const QParams& params, const std::string& subject) {
  const Granularity& g = params.spec.granularity;
  const bool tensor = std::holds_alternative<PerTensor>(g);
  const bool head = std::holds_alternative<PerHead>(g);
  if (!params.lower.empty() || std::holds_alternative<PerChannel>(g)) {
    throw Error(ErrorCode::kInvalidArgument,
                "lower: " + subject +
                    ": expected one scale a tensor, got one a channel, which no integer "
                    "product can use",
                "fold first (method repq_vit or repquant), or evaluate by simulation only");
  }
  if (!tensor && !head) {
    throw Error(ErrorCode::kUnsupported, "lower: " + subject +
                                             ": expected per-tensor or per-head scales, "
                                             "got " +
                                             to_string(params.spec));
  }
  const size_t count = head ? static_cast<size_t>(std::get<PerHead>(g).heads) : 1;
  if (params.scale.size() != count) {
    throw Error(ErrorCode::kInternal, "lower: " + subject + ": expected " + std::to_string(count) +
                                          " scales, got " + std::to_string(params.scale.size()));
  }
}

CodeFormat uniform_format(const QParams& params, const Uniform& uniform,
                          const std::string& subject) {
  CodeFormat format;
  format.bits = params.spec.bits;
  format.scale = params.scale;
  const CodeRange range = code_range(params.spec.bits, uniform);
  const int32_t offset = uniform.symmetric ? 1 << (params.spec.bits - 1) : 0;
  format.lo = range.lo + offset;
  format.hi = range.hi + offset;
  if (params.zero_point.empty()) {
    if (!uniform.symmetric)
      throw Error(ErrorCode::kInternal, "lower: " + subject + ": no zero point");
    format.zero = offset;
    return format;
  }
  for (const int32_t z : params.zero_point) {
    if (z != params.zero_point[0]) {
      throw Error(ErrorCode::kUnsupported,
                  "lower: " + subject + ": expected one zero point for all heads, got several",
                  "use symmetric codes for per-head sites");
    }
  }
  if (std::abs(params.zero_point[0]) > kMaxZeroPoint - offset) {
    throw Error(ErrorCode::kUnsupported, "lower: " + subject +
                                             ": expected a zero point within 2^22, got " +
                                             std::to_string(params.zero_point[0]));
  }
  format.zero = params.zero_point[0] + offset;
  return format;
}

CodeFormat level_format(const QParams& params, const Log& log, const std::string& subject) {
  if (log.compat) {
    throw Error(
        ErrorCode::kUnsupported,
        "lower: " + subject + ": compat log codes have 2^b + 1 levels and are simulation only",
        "quantize without compat, or use eval --simulate");
  }
  if (log.table_bits != 8 || params.scale.size() != 1) {
    throw Error(ErrorCode::kUnsupported, "lower: " + subject +
                                             ": a log-coded layer input runs as 8-bit "
                                             "levels per tensor, got " +
                                             to_string(params.spec));
  }
  CodeFormat format;
  format.kind = CodeFormat::Kind::kLevels;
  format.scale = params.scale;
  format.log_bits = params.spec.bits;
  format.base = log.base;
  format.shift = log.shift;
  return format;
}

Log log_of(const CodeFormat& format) { return {format.base, format.shift, 8, false}; }

}  // namespace

double CodeFormat::step(size_t head) const {
  const double s = scale[per_head() ? head : 0];
  return kind == Kind::kUniform ? s : s / kLogTable8One;
}

CodeFormat code_format(const QParams& params, const std::string& subject) {
  check_granularity(params, subject);
  check_scales(params, subject);
  if (const auto* uniform = std::get_if<Uniform>(&params.spec.format)) {
    return uniform_format(params, *uniform, subject);
  }
  if (const auto* log = std::get_if<Log>(&params.spec.format)) {
    return level_format(params, *log, subject);
  }
  throw Error(
      ErrorCode::kUnsupported,
      "lower: " + subject + ": expected uniform or log codes, got " + to_string(params.spec));
}

LogTable log_table(double scale, int bits, const Log& log) {
  const int count = log_level_count(bits, log);
  LogTable table;
  table.thresholds = log_thresholds(scale, log.base, count);
  if (log.table_bits == 16) {
    table.levels = log_table16(log.base, count);
  } else {
    const std::vector<uint8_t> narrow = log_table8(log.base, count);
    table.levels.assign(narrow.begin(), narrow.end());
  }
  // Coarse bases at many bits reach below the smallest f32: codes whose level is 0 are one code.
  if (log.table_bits != 0 && !(table.thresholds.back() >= 0x1p-126f)) {
    const auto zero = std::find(table.levels.begin(), table.levels.end(), 0) - table.levels.begin();
    table.levels.resize(static_cast<size_t>(zero) + 1);
    table.thresholds.resize(static_cast<size_t>(zero));
  }
  return table;
}

LogTable log_table(const CodeFormat& format) {
  REPQUANT_CHECK(format.kind == CodeFormat::Kind::kLevels);
  return log_table(format.scale[0], format.log_bits, log_of(format));
}

uint8_t encode(const CodeFormat& format, float x) {
  if (format.kind == CodeFormat::Kind::kUniform) {
    return static_cast<uint8_t>(
        quantize_uniform(x, inverse_scale(format.scale[0]), format.zero, format.lo, format.hi));
  }
  const LogTable table = log_table(format);
  const int code = log_code(x + static_cast<float>(format.shift), table.thresholds);
  return static_cast<uint8_t>(table.levels[static_cast<size_t>(code)]);
}

std::vector<uint8_t> code_table(const CodeFormat& input,
                                const std::function<double(double)>& function,
                                const CodeFormat& output) {
  std::vector<uint8_t> table(256);
  for (int32_t q = 0; q < 256; ++q) {
    const double x = static_cast<double>(input.scale[0]) * (q - input.zero);
    table[static_cast<size_t>(q)] = encode(output, static_cast<float>(function(x)));
  }
  return table;
}

}  // namespace repquant::lowering
