#pragma once
// attention_i8: softmax(q k^T) v of one head over u8 codes (core/plan.h, step `attention`), for a
// block of query rows. Products are exact integers; softmax is f32 in the fixed order of
// core/format/reduce.h.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/runtime/kernels/isa.h"
#include "repquant/runtime/kernels/log_fit.h"

namespace repquant::runtime {

struct AttentionI8Shape {
  int64_t query_rows = 0, key_rows = 0;  // tokens
  int64_t heads = 1, width = 0;          // width: of one head
};

// How a probability becomes a code. kRow: rne(255 e), divided by the row's sum of codes at the end.
enum class ProbabilityCodes : uint8_t { kLog, kUniform, kRow };

// The integer level of every code: `even` alone, or with `odd` as the parity law has it. `wide`
// when a level exceeds 2^14, or zv lies outside 0 .. 255: the product then needs int64 throughout.
struct AttentionLevels {
  int32_t even[256] = {}, odd[256] = {};
  bool parity = false, wide = false;
  int shift = 0;  // parity: R
};

struct AttentionI8Args {
  AttentionI8Shape shape;
  const uint8_t *q = nullptr, *k = nullptr, *v = nullptr;  // one item, [rows][heads * width]
  int32_t zq = 0, zk = 0, zv = 0;                          // differences to codes fit int16
  int64_t head = 0, first_row = 0, rows = 0;  // query rows [first_row, first_row + rows)
  bool load = true;                           // false: scratch holds k and v of this item and head
  float m = 1;
  const float* bias = nullptr;    // [query_rows][key_rows], added to scores; may be nullptr
  const uint8_t* mask = nullptr;  // [query_rows][key_rows], 0: key left out; may be nullptr
  ProbabilityCodes codes_kind = ProbabilityCodes::kLog;
  const float* thresholds = nullptr;  // kLog, [level_count], descending
  int64_t level_count = 0;
  LogFit fit;      // of the thresholds, or none
  float pinv = 1;  // kUniform
  int32_t phi = 255;
  const AttentionLevels* levels = nullptr;
  float mo = 1;
  uint8_t* codes = nullptr;  // one item, [rows][heads * width], codes out ...
  int32_t zero = 0, lo = 0, hi = 255;
  float* out = nullptr;          // ... or f32 out
  std::byte* scratch = nullptr;  // 64-byte aligned, scratch_bytes long
};

struct AttentionI8Kernel {
  std::string_view name;
  Isa isa;
  size_t (*scratch_bytes)(const AttentionI8Shape&);
  void (*run)(const AttentionI8Args&) noexcept;
};

std::span<const AttentionI8Kernel* const> attention_i8_kernels();

// Rows, each defined where its instruction set exists.
extern const AttentionI8Kernel attention_i8_scalar, attention_i8_avx2, attention_i8_avxvnni,
    attention_i8_avx512vnni;

}  // namespace repquant::runtime
