#pragma once
// Rows of 256-bit vectors: blocks of 6 query rows times panels of 16 keys, or of 16 columns of V.
// The corrections of codes minus 128 are those of the AVX512-VNNI row; int16 needs none.
#include "repquant/runtime/kernels/attention_i8/panels256.h"

namespace repquant::runtime {
namespace {

// ---- products -----------------------------------------------------------------------------------
template <bool kBytes> REPQUANT_INLINE_TARGET void dot(__m256i& acc, __m256i codes, __m256i panel) {
  if constexpr (kBytes) {
#if defined(__clang__)
    acc = _mm256_dpbusd_avx_epi32(acc, codes, panel);
#else
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(panel));
#endif
  } else {
    float256::add_pairs(acc, codes, panel);
  }
}

// Rows of dwords, `stride` bytes apart, times a panel.
template <bool kBytes, int kRows>
REPQUANT_INLINE_TARGET void products(const std::byte* a, int64_t stride, const int32_t* panel,
                                     int64_t steps, __m256i (&acc)[kRows][2]) {
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
  for (int64_t s = 0; s < steps; ++s, panel += kPanelLanes) {
    const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel)),
                  w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 8));
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      int32_t dword;
      std::memcpy(&dword, a + r * stride + 4 * s, 4);
      const __m256i codes = _mm256_set1_epi32(dword);
      dot<kBytes>(acc[r][0], codes, w0);
      dot<kBytes>(acc[r][1], codes, w1);
    }
  }
}

// Scores of 16 keys, in units of the softmax.
template <bool kBytes, int kRows>
REPQUANT_ALONE void score_panel(const std::byte* q, int64_t stride, const int32_t* panel,
                                int64_t steps, const int32_t* key_terms, const int32_t* row_terms,
                                float m, float* x, int64_t x_stride) {
  __m256i acc[kRows][2];
  products<kBytes, kRows>(q, stride, panel, steps, acc);
  const __m256 scale = _mm256_set1_ps(m);
#pragma GCC unroll 2
  for (int v = 0; v < 2; ++v) {
    const __m256i key = _mm256_load_si256(reinterpret_cast<const __m256i*>(key_terms + 8 * v));
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const __m256i t =
          _mm256_add_epi32(_mm256_add_epi32(acc[r][v], key), _mm256_set1_epi32(row_terms[r]));
      _mm256_store_ps(x + r * x_stride + 8 * v, _mm256_mul_ps(_mm256_cvtepi32_ps(t), scale));
    }
  }
}

template <bool kBytes, int kRows>
REPQUANT_ALONE void value_panel(const int32_t* p, const int32_t* panel, int64_t steps, int32_t* out,
                                int64_t out_stride) {
  __m256i acc[kRows][2];
  products<kBytes, kRows>(reinterpret_cast<const std::byte*>(p), steps * 4, panel, steps, acc);
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v)
      _mm256_store_si256(reinterpret_cast<__m256i*>(out + r * out_stride + 8 * v), acc[r][v]);
  }
}

template <bool kBytes, int kRows>
REPQUANT_TARGET void score_rows(const Call256& call, int64_t row, int64_t rows) {
  const AttentionI8Args& args = call.args;
  const AttentionI8Shape& shape = args.shape;
  const int64_t stride = shape.heads * shape.width, steps = call.sizes.depth_steps();
  const uint8_t* q = args.q + row * stride + args.head * shape.width;
  int32_t row_terms[kTileRows] = {};
  const auto* a = reinterpret_cast<const std::byte*>(q);
  int64_t a_stride = stride;
  for (int64_t r = 0; kBytes && r < rows; ++r) {
    row_terms[r] = static_cast<int32_t>((128u - static_cast<uint32_t>(args.zk)) *
                                        float256::byte_sum(q + r * stride, shape.width));
  }
  if (!kBytes || rows < kRows || shape.width % 4 != 0) {
    std::memset(call.scratch.q, 0, static_cast<size_t>(kRows * steps) * 4);
    for (int64_t r = 0; r < rows; ++r) {
      int32_t* to = call.scratch.q + r * steps;
      if (kBytes) std::memcpy(to, q + r * stride, static_cast<size_t>(shape.width));
      else widen(q + r * stride, shape.width, args.zq, shape.width, reinterpret_cast<int16_t*>(to));
    }
    a = reinterpret_cast<const std::byte*>(call.scratch.q);
    a_stride = steps * 4;
  }
  for (int64_t first = 0; first < call.sizes.keys; first += kPanelLanes) {
    score_panel<kBytes, kRows>(a, a_stride, call.scratch.k + first * steps, steps,
                               call.scratch.key_terms + first, row_terms, args.m,
                               call.scratch.x + first, call.sizes.keys);
  }
}

// ---- softmax ------------------------------------------------------------------------------------
// Bias and mask of a query, as add_terms has them.
REPQUANT_TARGET void add_terms256(const AttentionI8Args& args, int64_t query, float* x) {
  const int64_t keys = args.shape.key_rows, whole = keys / 8 * 8;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  if (args.bias != nullptr) {
    const float* bias = args.bias + query * keys;
    for (int64_t t = 0; t < whole; t += 8)
      _mm256_store_ps(x + t, _mm256_add_ps(_mm256_load_ps(x + t), _mm256_loadu_ps(bias + t)));
    for (int64_t t = whole; t < keys; ++t) x[t] = x[t] + bias[t];
  }
  if (args.mask != nullptr) {
    const uint8_t* mask = args.mask + query * keys;
    for (int64_t t = 0; t < whole; t += 8) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask + t));
      const __m256i left_out =
          _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_setzero_si256());
      _mm256_store_ps(x + t, _mm256_blendv_ps(_mm256_load_ps(x + t), _mm256_set1_ps(kNone),
                                              _mm256_castsi256_ps(left_out)));
    }
    for (int64_t t = whole; t < keys; ++t) x[t] = mask[t] == 0 ? kNone : x[t];
  }
}

// Terms of a query, then keys that are not there: -infinity, whose exponential is 0. The largest.
REPQUANT_TARGET float finish_scores(const Call256& call, int64_t query, float* x) {
  const int64_t keys = call.args.shape.key_rows;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  add_terms256(call.args, query, x);
  for (int64_t t = keys; t < call.sizes.keys; ++t) x[t] = kNone;
  __m256 most = _mm256_set1_ps(kNone);
  for (int64_t t = 0; t < call.sizes.keys; t += 8)
    most = _mm256_max_ps(_mm256_load_ps(x + t), most);  // a NaN in `x` is passed over
  return float256::largest_lane(most);
}

// x := exp(x - most); returns the lane sum.
REPQUANT_ALONE float exponentials(float* x, int64_t padded, float most) {
  if (most == -std::numeric_limits<float>::infinity()) {
    std::memset(x, 0, static_cast<size_t>(padded) * 4);
    return 0;
  }
  __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
  for (int64_t t = 0; t < padded; t += 16) {
    const auto e =
        float256::exp(float256::sub(float256::load<2>(x + t), float256::constant<2>(most)));
    float256::store(x + t, e);
    low = _mm256_add_ps(low, e.v[0]);
    high = _mm256_add_ps(high, e.v[1]);
  }
  return float256::combine(low, high);
}

// 16 values at a time to codes.
template <class Code>
REPQUANT_INLINE_TARGET void encode_each(const float* x, int64_t padded, uint8_t* codes,
                                        const Code& code) {
  for (int64_t t = 0; t < padded; t += 16) {
    const __m256i words = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(code(_mm256_load_ps(x + t)), code(_mm256_load_ps(x + t + 8))), 0xd8);
    _mm_store_si128(
        reinterpret_cast<__m128i*>(codes + t),
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }
}

// Codes of a row of exponentials.
REPQUANT_ALONE void encode(const Call256& call, const float* x, float sum) {
  const AttentionI8Args& args = call.args;
  const int64_t padded = call.sizes.keys;
  uint8_t* to = call.scratch.codes;
  if (args.codes_kind == ProbabilityCodes::kRow) {
    const float256::Codes codes(0, 0, 255);
    const __m256 scale = _mm256_set1_ps(255.0f);
    return encode_each(x, padded, to, [&](__m256 e) REPQUANT_TARGET {
      return codes.round(_mm256_mul_ps(e, scale));
    });
  }
  const __m256 divisor = _mm256_set1_ps(sum == 0.0f ? 1.0f : sum);
  if (args.codes_kind == ProbabilityCodes::kUniform) {
    const float256::Codes codes(0, 0, args.phi);
    const __m256 inverse = _mm256_set1_ps(args.pinv);
    return encode_each(x, padded, to, [&](__m256 e) REPQUANT_TARGET {
      return codes.round(_mm256_mul_ps(_mm256_div_ps(e, divisor), inverse));
    });
  }
  const LogCoder256 coder(args.thresholds, args.level_count, args.fit);
  encode_each(x, padded, to,
              [&](__m256 e) REPQUANT_TARGET { return coder(_mm256_div_ps(e, divisor)); });
}

// Levels of the codes of row r, for keys that are there.
template <bool kBytes> REPQUANT_TARGET void place(const Call256& call, int64_t r) {
  const AttentionI8Args& args = call.args;
  const int64_t padded = call.sizes.keys, at = r * call.sizes.key_steps();
  uint8_t* codes = call.scratch.codes;
  const bool log = args.codes_kind == ProbabilityCodes::kLog;
  if (!log || call.short_table) {
    const __m128i table = _mm_load_si128(reinterpret_cast<const __m128i*>(call.small));
    // The highest bit looks up zero.
    std::memset(codes + args.shape.key_rows, log ? 0x80 : 0,
                static_cast<size_t>(padded - args.shape.key_rows));
    auto* to = reinterpret_cast<uint8_t*>(call.scratch.p[0] + at);
    for (int64_t t = 0; t < padded; t += 16) {
      __m128i level = _mm_load_si128(reinterpret_cast<const __m128i*>(codes + t));
      if (log) level = _mm_shuffle_epi8(table, level);
      if constexpr (kBytes) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + t), level);
      } else {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * t), _mm256_cvtepu8_epi16(level));
      }
    }
    return;
  }
  const auto look_up = [&](const int32_t* levels, int32_t* plane) {
    auto* bytes = reinterpret_cast<uint8_t*>(plane + at);
    auto* words = reinterpret_cast<int16_t*>(plane + at);
    for (int64_t t = 0; t < padded; ++t) {
      const int32_t level = t < args.shape.key_rows ? levels[codes[t]] : 0;
      if constexpr (kBytes) bytes[t] = static_cast<uint8_t>(level);
      else words[t] = static_cast<int16_t>(level);
    }
  };
  look_up(args.levels->even, call.scratch.p[0]);
  if (args.levels->parity) look_up(args.levels->odd, call.scratch.p[1]);
}

// ---- the way out --------------------------------------------------------------------------------
template <bool kBytes>
REPQUANT_TARGET void write(const Call256& call, int64_t r, int64_t row, int64_t divisor) {
  const AttentionI8Args& args = call.args;
  const int64_t width = args.shape.width;
  const int64_t at = row * args.shape.heads * width + args.head * width;
  const int32_t* even = call.scratch.acc[0] + r * call.sizes.columns;
  if (args.levels->parity) {
    const int32_t* odd = call.scratch.acc[1] + r * call.sizes.columns;
    for (int64_t c = 0; c < width; ++c) {
      const float u = parity_combine(even[c], odd[c], args.levels->shift) * args.mo;
      if (args.codes != nullptr)
        args.codes[at + c] = static_cast<uint8_t>(quantize_scaled(u, args.zero, args.lo, args.hi));
      else args.out[at + c] = u;
    }
    return;
  }
  uint32_t correction = 0;
  if (kBytes) {
    const auto* levels = reinterpret_cast<const uint8_t*>(call.scratch.p[0]) + r * call.sizes.keys;
    correction =
        (128u - static_cast<uint32_t>(args.zv)) * float256::byte_sum(levels, call.sizes.keys);
  }
  const __m256i raised = _mm256_set1_epi32(static_cast<int32_t>(correction));
  const float256::Codes codes(args.zero, args.lo, args.hi);
  const __m256 mo = _mm256_set1_ps(args.mo),
               row_sum = _mm256_set1_ps(divisor == 0 ? 1.0f : static_cast<float>(divisor));
  for (int64_t c = 0; c < width; c += 8) {
    const __m256i sum = _mm256_load_si256(reinterpret_cast<const __m256i*>(even + c));
    __m256 u = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, raised));
    if (args.codes_kind == ProbabilityCodes::kRow) u = _mm256_div_ps(u, row_sum);
    u = _mm256_mul_ps(u, mo);
    if (args.codes != nullptr)
      float256::store_bytes(codes.round(u), width - c, args.codes + at + c);
    else _mm256_maskstore_ps(args.out + at + c, float256::first_lanes(width - c), u);
  }
}

template <bool kBytes, int kRows>
REPQUANT_TARGET void block(const Call256& call, int64_t row, int64_t rows) {
  const AttentionI8Args& args = call.args;
  score_rows<kBytes, kRows>(call, row, rows);
  int64_t divisor[kTileRows] = {};
  for (int64_t r = 0; r < rows; ++r) {
    float* x = call.scratch.x + r * call.sizes.keys;
    const float sum = exponentials(x, call.sizes.keys, finish_scores(call, row + r, x));
    encode(call, x, sum);
    if (args.codes_kind == ProbabilityCodes::kRow)
      divisor[r] = float256::byte_sum(call.scratch.codes, call.sizes.keys);
    place<kBytes>(call, r);
  }
  const int64_t steps = call.sizes.key_steps();
  for (int plane = 0; plane < (args.levels->parity ? 2 : 1); ++plane) {
    for (int64_t c = 0; c < args.shape.width; c += kPanelLanes)
      value_panel<kBytes, kRows>(call.scratch.p[plane], call.scratch.v + c * steps, steps,
                                 call.scratch.acc[plane] + c, call.sizes.columns);
  }
  for (int64_t r = 0; r < rows; ++r) write<kBytes>(call, r, row + r, divisor[r]);
}

template <bool kBytes> REPQUANT_TARGET void run_blocks(const Call256& call) {
  const AttentionI8Args& args = call.args;
  if (args.load) {
    load_keys<kBytes>(call);
    load_values<kBytes>(call);
  }
  for (int64_t done = 0; done < args.rows; done += kTileRows) {
    const int64_t row = args.first_row + done, rows = std::min(kTileRows, args.rows - done);
    if (rows > 4) block<kBytes, kTileRows>(call, row, rows);
    else if (rows > 1) block<kBytes, 4>(call, row, rows);
    else block<kBytes, 1>(call, row, rows);
  }
}

// kDot: whether there is vpdpbusd.
template <bool kDot> REPQUANT_TARGET void run256(const AttentionI8Args& args) noexcept {
  const AttentionLevels& levels = *args.levels;
  const bool log = args.codes_kind == ProbabilityCodes::kLog;
  const auto highest = [&](const int32_t* table) {
    return log ? *std::max_element(table, table + args.level_count + 1) : 0;
  };
  const bool one_byte = std::max(highest(levels.even), highest(levels.odd)) <= 255;
  // 2^14 * 255 * 512 < 2^31
  if (!fits256(args.shape) || levels.wide || (!one_byte && args.shape.key_rows > 512))
    return run(args);
  const bool bytes = kDot && one_byte && !levels.parity;
  const Sizes256 sizes(args.shape, bytes);
  Carver carver(args.scratch);
  Call256 call{args, sizes, carve256(sizes, carver),
               log && one_byte && !levels.parity && args.level_count <= 15};
  if (call.short_table) {
    for (int64_t code = 0; code <= args.level_count; ++code)
      call.small[code] = static_cast<uint8_t>(levels.even[code]);
  }
  if constexpr (kDot) {
    if (bytes) return run_blocks<true>(call);
  }
  run_blocks<false>(call);
}

}  // namespace
}  // namespace repquant::runtime
