#pragma once
// What a u8 code in a buffer means: an activation site reduced to what executors need.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "repquant/core/quant_spec.h"

namespace repquant::lowering {

// kUniform: x = scale (q - zero), lo <= q <= hi. Signed codes are stored plus 2^(b-1),
// zero with them.
// kLevels: x = scale q / 255 - shift, q an entry of the log code's 8-bit level table.
struct CodeFormat {
  enum class Kind { kUniform, kLevels };
  Kind kind = Kind::kUniform;
  int bits = 8;  // of the stored codes; levels: 8
  int32_t zero = 0, lo = 0, hi = 255;
  std::vector<float> scale;  // 1, or one a head
  int log_bits = 0;          // kLevels: bits, base and shift of the log code
  double base = 1.0, shift = 0.0;
  bool operator==(const CodeFormat&) const = default;

  bool per_head() const { return scale.size() > 1; }
  double step(size_t head = 0) const;  // real value of one unit of the code
};

// Throws kInvalidArgument for per-channel sites (not folded), kUnsupported for formats without an
// integer kernel; `subject` names the site.
CodeFormat code_format(const QParams& params, const std::string& subject);

// Thresholds [K] and integer levels [K + 1], the last of them 0, of 8 or 14 fraction bits as
// log.table_bits says. Where thresholds would leave the range of f32, codes of level 0 are merged.
struct LogTable {
  std::vector<float> thresholds;
  std::vector<uint16_t> levels;
};
LogTable log_table(double scale, int bits, const Log& log);
LogTable log_table(const CodeFormat& format);  // of a kLevels format

// The code (or level) of a float by the laws of `quantize`, or `quantize_log` and its level table.
uint8_t encode(const CodeFormat& format, float x);

// 256 entries: code of function(input value) for every input code; per-tensor formats.
std::vector<uint8_t> code_table(const CodeFormat& input,
                                const std::function<double(double)>& function,
                                const CodeFormat& output);

}  // namespace repquant::lowering
