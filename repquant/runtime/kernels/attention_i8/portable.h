#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file that has nothing better, whose REPQUANT_ROW sets the target and inlines all below it.
// The portable row: codes widened to int16 with zero points removed, V transposed, so that both
// products are dot products over contiguous int16.
#include <algorithm>
#include <cstring>

#include "repquant/core/format/log.h"
#include "repquant/core/format/reduce.h"
#include "repquant/core/format/uniform.h"
#include "repquant/runtime/kernels/attention_i8/attention_i8.h"
#include "repquant/runtime/kernels/dot.h"
#include "repquant/runtime/kernels/thresholds.h"

namespace repquant::runtime {
namespace {

// 2^14 * 255 * 512 < 2^31: int32 sums are exact within a block of keys, blocks are added in int64.
constexpr int64_t kKeyBlock = 512;

struct Sizes {
  int64_t depth, keys, columns;  // padded: head width, keys, head width as columns of V
  explicit Sizes(const AttentionI8Shape& shape)
      : depth(round_up(shape.width, kDotDepth)),
        keys(round_up(shape.key_rows, kDotDepth)),
        columns(round_up(shape.width, kDotCols)) {}
};

struct Scratch {
  int16_t *k, *v, *q;           // [keys][depth], blocks of [columns][block keys], [4][depth]
  int32_t* scores;              // [4][keys]
  float* row;                   // [keys]
  uint8_t* codes;               // [keys]
  int16_t *even, *odd;          // blocks of [4][block keys]
  int32_t* partial;             // [4][columns]
  int64_t *even_sum, *odd_sum;  // [4][columns]
};

class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class T> T* take(int64_t count) {
    T* at = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return at;
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

Scratch carve(const Sizes& sizes, Carver& carver) {
  Scratch scratch{};
  scratch.k = carver.take<int16_t>(sizes.keys * sizes.depth);
  scratch.v = carver.take<int16_t>(sizes.keys * sizes.columns);
  scratch.q = carver.take<int16_t>(kDotRows * sizes.depth);
  scratch.scores = carver.take<int32_t>(kDotRows * sizes.keys);
  scratch.row = carver.take<float>(sizes.keys);
  scratch.codes = carver.take<uint8_t>(sizes.keys);
  scratch.even = carver.take<int16_t>(kDotRows * sizes.keys);
  scratch.odd = carver.take<int16_t>(kDotRows * sizes.keys);
  scratch.partial = carver.take<int32_t>(kDotRows * sizes.columns);
  scratch.even_sum = carver.take<int64_t>(kDotRows * sizes.columns);
  scratch.odd_sum = carver.take<int64_t>(kDotRows * sizes.columns);
  return scratch;
}

size_t scratch_bytes(const AttentionI8Shape& shape) {
  Carver carver(nullptr);
  carve(Sizes(shape), carver);
  return static_cast<size_t>(carver.used());
}

// One row of codes minus their zero point, padded with zeros.
void widen(const uint8_t* __restrict from, int64_t count, int32_t zero, int64_t padded,
           int16_t* __restrict to) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<int16_t>(from[i] - zero);
  for (int64_t i = count; i < padded; ++i) to[i] = 0;
}

void load_keys_and_values(const AttentionI8Args& args, const Sizes& sizes, const Scratch& scratch) {
  const AttentionI8Shape& shape = args.shape;
  const int64_t stride = shape.heads * shape.width, offset = args.head * shape.width;
  std::memset(scratch.k, 0, static_cast<size_t>(sizes.keys * sizes.depth) * 2);
  std::memset(scratch.v, 0, static_cast<size_t>(sizes.keys * sizes.columns) * 2);
  for (int64_t t = 0; t < shape.key_rows; ++t) {
    widen(args.k + t * stride + offset, shape.width, args.zk, sizes.depth,
          scratch.k + t * sizes.depth);
  }
  for (int64_t first = 0; first < shape.key_rows; first += kKeyBlock) {
    const int64_t block = std::min(kKeyBlock, sizes.keys - first);
    const int64_t last = std::min(first + block, shape.key_rows);
    int16_t* panel = scratch.v + first * sizes.columns;
    for (int64_t t = first; t < last; ++t) {
      const uint8_t* from = args.v + t * stride + offset;
      for (int64_t c = 0; c < shape.width; ++c) {
        panel[c * block + t - first] = static_cast<int16_t>(from[c] - args.zv);
      }
    }
  }
}

void score(const AttentionI8Args& args, const Sizes& sizes, const Scratch& scratch, int64_t row,
           int64_t rows) {
  const AttentionI8Shape& shape = args.shape;
  const int64_t stride = shape.heads * shape.width;
  for (int64_t r = 0; r < kDotRows; ++r) {
    const uint8_t* from = args.q + (row + r) * stride + args.head * shape.width;
    widen(from, r < rows ? shape.width : 0, args.zq, sizes.depth, scratch.q + r * sizes.depth);
  }
  for (int64_t t = 0; t < shape.key_rows; t += kDotCols) {
    dot_tile(scratch.q, scratch.k + t * sizes.depth, sizes.depth, scratch.scores + t, sizes.keys);
  }
}

// Bias and mask of one query; a key left out has the score -infinity, whose exponential is 0.
void add_terms(const AttentionI8Args& args, int64_t query, float* __restrict row) {
  const int64_t keys = args.shape.key_rows;
  if (args.bias != nullptr) {
    const float* __restrict bias = args.bias + query * keys;
    for (int64_t t = 0; t < keys; ++t) row[t] = row[t] + bias[t];
  }
  if (args.mask != nullptr) {
    const uint8_t* __restrict mask = args.mask + query * keys;
    for (int64_t t = 0; t < keys; ++t)
      row[t] = mask[t] == 0 ? -std::numeric_limits<float>::infinity() : row[t];
  }
}

// Codes of one row's probabilities; returns the divisor of the row.
int64_t encode_row(const AttentionI8Args& args, int64_t query, const int32_t* __restrict scores,
                   float* __restrict row, uint8_t* __restrict codes) {
  const int64_t keys = args.shape.key_rows;
  const std::span<float> span(row, static_cast<size_t>(keys));
  const float m = args.m;
  for (int64_t t = 0; t < keys; ++t) row[t] = static_cast<float>(scores[t]) * m;
  add_terms(args, query, row);
  if (args.codes_kind == ProbabilityCodes::kRow) {
    softmax_exp_row(span, span);
    int32_t total = 0;
    for (int64_t t = 0; t < keys; ++t) {
      const int32_t code = row_code(row[t]);
      total += code;
      codes[t] = static_cast<uint8_t>(code);
    }
    return total;
  }
  softmax_row(span, span);
  if (args.codes_kind == ProbabilityCodes::kLog) {
    count_thresholds<false>(row, keys, 0.0f, args.thresholds, args.level_count, codes);
    return 1;
  }
  const float pinv = args.pinv;
  const int32_t phi = args.phi;
  for (int64_t t = 0; t < keys; ++t) {
    codes[t] = static_cast<uint8_t>(quantize_uniform(row[t], pinv, 0, 0, phi));
  }
  return 1;
}

// Levels of one row into the blocks the product reads.
void place_levels(const int32_t* table, const uint8_t* codes, int64_t keys, int64_t padded,
                  int64_t r, int16_t* planes) {
  for (int64_t first = 0; first < padded; first += kKeyBlock) {
    const int64_t block = std::min(kKeyBlock, padded - first);
    const int64_t live = std::clamp<int64_t>(keys - first, 0, block);
    int16_t* to = planes + first * kDotRows + r * block;
    for (int64_t t = 0; t < live; ++t) to[t] = static_cast<int16_t>(table[codes[first + t]]);
    for (int64_t t = live; t < block; ++t) to[t] = 0;
  }
}

void multiply_values(const Sizes& sizes, const Scratch& scratch, const int16_t* planes,
                     int64_t* sums) {
  std::fill(sums, sums + kDotRows * sizes.columns, 0);
  for (int64_t first = 0; first < sizes.keys; first += kKeyBlock) {
    const int64_t block = std::min(kKeyBlock, sizes.keys - first);
    const int16_t* values = scratch.v + first * sizes.columns;
    for (int64_t c = 0; c < sizes.columns; c += kDotCols) {
      dot_tile(planes + first * kDotRows, values + c * block, block, scratch.partial + c,
               sizes.columns);
    }
    for (int64_t i = 0; i < kDotRows * sizes.columns; ++i) sums[i] += scratch.partial[i];
  }
}

// For operands beyond the bound above: codes against the transposed values, one product at a time.
void multiply_wide(const AttentionI8Args& args, const Sizes& sizes, const Scratch& scratch,
                   int64_t r) {
  for (int64_t c = 0; c < args.shape.width; ++c) {
    int64_t even = 0, odd = 0;
    for (int64_t t = 0; t < args.shape.key_rows; ++t) {
      const int64_t first = t / kKeyBlock * kKeyBlock;
      const int64_t block = std::min(kKeyBlock, sizes.keys - first);
      const int64_t value = scratch.v[first * sizes.columns + c * block + t - first];
      even += args.levels->even[scratch.codes[t]] * value;
      odd += args.levels->odd[scratch.codes[t]] * value;
    }
    scratch.even_sum[r * sizes.columns + c] = even;
    scratch.odd_sum[r * sizes.columns + c] = odd;
  }
}

void write_row(const AttentionI8Args& args, const int64_t* even, const int64_t* odd,
               int64_t divisor, int64_t row) {
  const int64_t width = args.shape.width;
  const int64_t at = row * args.shape.heads * width + args.head * width;
  for (int64_t c = 0; c < width; ++c) {
    float u = args.levels->parity ? parity_combine(even[c], odd[c], args.levels->shift)
                                  : static_cast<float>(even[c]);
    if (args.codes_kind == ProbabilityCodes::kRow)
      u = divisor == 0 ? 0.0f : u / static_cast<float>(divisor);
    u = u * args.mo;
    if (args.codes != nullptr) {
      args.codes[at + c] = static_cast<uint8_t>(quantize_scaled(u, args.zero, args.lo, args.hi));
    } else {
      args.out[at + c] = u;
    }
  }
}

[[maybe_unused]] REPQUANT_ROW void run(const AttentionI8Args& args) noexcept {
  const Sizes sizes(args.shape);
  Carver carver(args.scratch);
  const Scratch scratch = carve(sizes, carver);
  const AttentionLevels& levels = *args.levels;
  if (args.load) load_keys_and_values(args, sizes, scratch);
  std::memset(scratch.even, 0, static_cast<size_t>(kDotRows * sizes.keys) * 2);
  std::memset(scratch.odd, 0, static_cast<size_t>(kDotRows * sizes.keys) * 2);
  for (int64_t done = 0; done < args.rows; done += kDotRows) {
    const int64_t row = args.first_row + done, rows = std::min(kDotRows, args.rows - done);
    int64_t divisor[kDotRows] = {};
    score(args, sizes, scratch, row, rows);
    for (int64_t r = 0; r < rows; ++r) {
      divisor[r] =
          encode_row(args, row + r, scratch.scores + r * sizes.keys, scratch.row, scratch.codes);
      if (levels.wide) {
        multiply_wide(args, sizes, scratch, r);
        continue;
      }
      place_levels(levels.even, scratch.codes, args.shape.key_rows, sizes.keys, r, scratch.even);
      if (levels.parity) {
        place_levels(levels.odd, scratch.codes, args.shape.key_rows, sizes.keys, r, scratch.odd);
      }
    }
    if (!levels.wide) {
      multiply_values(sizes, scratch, scratch.even, scratch.even_sum);
      if (levels.parity) multiply_values(sizes, scratch, scratch.odd, scratch.odd_sum);
    }
    for (int64_t r = 0; r < rows; ++r) {
      write_row(args, scratch.even_sum + r * sizes.columns, scratch.odd_sum + r * sizes.columns,
                divisor[r], row + r);
    }
  }
}

}  // namespace

}  // namespace repquant::runtime
