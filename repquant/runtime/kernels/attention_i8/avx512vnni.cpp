// AVX512-VNNI: blocks of 6 query rows. K lies in panels of 64 keys and V in panels of 64 columns,
// as the weights of gemm_i8; both are stored minus 128, which the sums of codes correct exactly:
//   sum (q-zq)(k-zk) = sum q(k-128) + (128-zk) sum q - zq sum k + width zq zk
//   sum p(v-zv)      = sum p(v-128) + (128-zv) sum p
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/attention_i8/portable.h"
#include "repquant/runtime/kernels/float512.h"
#include "repquant/runtime/kernels/log_coder512.h"
#include "repquant/runtime/kernels/vnni512.h"

namespace repquant::runtime {
namespace {

using vnni512::kColumns;
using vnni512::kRows;

// Of its own, so that the accumulators have all registers.
#define REPQUANT_ALONE REPQUANT_AVX512VNNI __attribute__((noinline))

constexpr int64_t kMaxKeys = 32768;  // int32 sums of codes times differences of codes
constexpr int kPlanes = 4;           // bytes of levels: even low, even high, odd low, odd high

bool fits(const AttentionI8Shape& shape) {
  return shape.key_rows <= kMaxKeys && shape.width <= kMaxKeys;
}

struct WideSizes {
  int64_t depth, keys, steps, columns;  // padded: width, keys as columns, keys as depth, width
  explicit WideSizes(const AttentionI8Shape& shape)
      : depth(round_up(shape.width, 4)),
        keys(round_up(shape.key_rows, 16)),
        steps(round_up(shape.key_rows, 16)),
        columns(round_up(shape.width, 16)) {}
};

struct WideScratch {
  int8_t *k, *v;        // panels
  int32_t* key_terms;   // [keys]
  uint8_t* q;           // [6][depth], rows that cannot be read in place
  float* x;             // [6][keys]
  uint8_t* p[kPlanes];  // [6][steps]
  int32_t* acc;         // [planes][6][columns]
};

WideScratch carve_wide(const WideSizes& sizes, Carver& carver) {
  WideScratch scratch{};
  scratch.k = carver.take<int8_t>(sizes.keys * sizes.depth);
  scratch.v = carver.take<int8_t>(sizes.steps * sizes.columns);
  scratch.key_terms = carver.take<int32_t>(sizes.keys);
  scratch.q = carver.take<uint8_t>(kRows * sizes.depth);
  scratch.x = carver.take<float>(kRows * sizes.keys);
  for (uint8_t*& plane : scratch.p) plane = carver.take<uint8_t>(kRows * sizes.steps);
  scratch.acc = carver.take<int32_t>(kPlanes * kRows * sizes.columns);
  return scratch;
}

size_t wide_scratch_bytes(const AttentionI8Shape& shape) {
  if (!fits(shape)) return scratch_bytes(shape);
  Carver carver(nullptr);
  carve_wide(WideSizes(shape), carver);
  return std::max(static_cast<size_t>(carver.used()), scratch_bytes(shape));
}

uint32_t flipped(uint32_t codes) { return codes ^ 0x80808080u; }  // four codes minus 128

REPQUANT_AVX512VNNI void load_keys(const AttentionI8Args& args, const WideSizes& sizes,
                                   const WideScratch& scratch) {
  const AttentionI8Shape& shape = args.shape;
  const int64_t stride = shape.heads * shape.width;
  const auto zq = static_cast<uint32_t>(args.zq), zk = static_cast<uint32_t>(args.zk);
  const uint32_t fixed = static_cast<uint32_t>(shape.width) * zq * zk;
  for (int64_t t = 0; t < sizes.keys; ++t) {
    const int64_t first = t / kColumns * kColumns;
    const int64_t width = std::min(kColumns, sizes.keys - first);
    int8_t* to = scratch.k + first * sizes.depth + (t - first) * 4;
    if (t >= shape.key_rows) {
      scratch.key_terms[t] = 0;
      for (int64_t d = 0; d < sizes.depth; d += 4) std::memset(to + d * width, 0, 4);
      continue;
    }
    const uint8_t* row = args.k + t * stride + args.head * shape.width;
    scratch.key_terms[t] = static_cast<int32_t>(fixed - zq * vnni512::byte_sum(row, shape.width));
    int64_t d = 0;
    for (; d + 4 <= shape.width; d += 4) {
      uint32_t quad;
      std::memcpy(&quad, row + d, 4);
      quad = flipped(quad);
      std::memcpy(to + d * width, &quad, 4);
    }
    if (d == shape.width) continue;
    uint32_t quad = 0x80808080u;
    std::memcpy(&quad, row + d, static_cast<size_t>(shape.width - d));
    quad = flipped(quad);
    std::memcpy(to + d * width, &quad, 4);
  }
}

REPQUANT_AVX512VNNI void load_values(const AttentionI8Args& args, const WideSizes& sizes,
                                     const WideScratch& scratch) {
  const AttentionI8Shape& shape = args.shape;
  const int64_t stride = shape.heads * shape.width;
  const uint8_t* from = args.v + args.head * shape.width;
  const __m128i flip = _mm_set1_epi8(-128);
  for (int64_t first = 0; first < sizes.columns; first += kColumns) {
    const int64_t width = std::min(kColumns, sizes.columns - first);
    int8_t* panel = scratch.v + first * sizes.steps;
    for (int64_t t = 0; t < sizes.steps; t += 4) {
      for (int64_t c = 0; c < width; c += 16) {
        const __mmask16 live = float512::first_lanes(std::max<int64_t>(shape.width - first - c, 0));
        __m128i row[4];
        for (int64_t i = 0; i < 4; ++i) {
          row[i] = t + i >= shape.key_rows
                       ? _mm_setzero_si128()
                       : _mm_xor_si128(
                             flip, _mm_maskz_loadu_epi8(live, from + (t + i) * stride + first + c));
        }
        const __m128i low01 = _mm_unpacklo_epi8(row[0], row[1]),
                      high01 = _mm_unpackhi_epi8(row[0], row[1]),
                      low23 = _mm_unpacklo_epi8(row[2], row[3]),
                      high23 = _mm_unpackhi_epi8(row[2], row[3]);
        auto* to = reinterpret_cast<__m128i*>(panel + (t / 4 * width + c) * 4);
        _mm_storeu_si128(to, _mm_unpacklo_epi16(low01, low23));
        _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low01, low23));
        _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high01, high23));
        _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high01, high23));
      }
    }
  }
}

// 6 rows times one panel of `kVectors` vectors of keys: scores in units of the softmax.
template <int kVectors>
REPQUANT_ALONE void score_panel(const uint8_t* q, int64_t stride, const int8_t* panel,
                                int64_t quads, const int32_t* key_terms, const int32_t* row_terms,
                                float m, float* x, int64_t x_stride) {
  __m512i acc[kRows][kVectors];
  vnni512::products<kRows, kVectors>(q, stride, panel, quads, acc);
  const __m512 scale = _mm512_set1_ps(m);
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __m512i key = _mm512_loadu_si512(key_terms + 16 * v);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const __m512i t =
          _mm512_add_epi32(_mm512_add_epi32(acc[r][v], key), _mm512_set1_epi32(row_terms[r]));
      _mm512_storeu_ps(x + r * x_stride + 16 * v, _mm512_mul_ps(_mm512_cvtepi32_ps(t), scale));
    }
  }
}

template <int kVectors>
REPQUANT_ALONE void value_panel(const uint8_t* p, int64_t stride, const int8_t* panel,
                                int64_t quads, int32_t* acc_out, int64_t out_stride) {
  __m512i acc[kRows][kVectors];
  vnni512::products<kRows, kVectors>(p, stride, panel, quads, acc);
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      _mm512_storeu_si512(acc_out + r * out_stride + 16 * v, acc[r][v]);
  }
}

REPQUANT_AVX512VNNI void score_rows(const AttentionI8Args& args, const WideSizes& sizes,
                                    const WideScratch& scratch, int64_t row, int64_t rows) {
  const AttentionI8Shape& shape = args.shape;
  const int64_t stride = shape.heads * shape.width;
  const uint8_t* q = args.q + row * stride + args.head * shape.width;
  int64_t q_stride = stride;
  int32_t row_terms[kRows] = {};
  for (int64_t r = 0; r < rows; ++r) {
    row_terms[r] = static_cast<int32_t>((128u - static_cast<uint32_t>(args.zk)) *
                                        vnni512::byte_sum(q + r * stride, shape.width));
  }
  if (rows < kRows || shape.width % 4 != 0) {
    std::memset(scratch.q, 0, static_cast<size_t>(kRows * sizes.depth));
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(scratch.q + r * sizes.depth, q + r * stride, static_cast<size_t>(shape.width));
    q = scratch.q;
    q_stride = sizes.depth;
  }
  for (int64_t first = 0; first < sizes.keys; first += kColumns) {
    const int8_t* panel = scratch.k + first * sizes.depth;
    const int32_t* terms = scratch.key_terms + first;
    float* x = scratch.x + first;
    const int64_t quads = sizes.depth / 4;
    switch (std::min(kColumns, sizes.keys - first) / 16) {
      case 1:
        score_panel<1>(q, q_stride, panel, quads, terms, row_terms, args.m, x, sizes.keys);
        break;
      case 2:
        score_panel<2>(q, q_stride, panel, quads, terms, row_terms, args.m, x, sizes.keys);
        break;
      case 3:
        score_panel<3>(q, q_stride, panel, quads, terms, row_terms, args.m, x, sizes.keys);
        break;
      default:
        score_panel<4>(q, q_stride, panel, quads, terms, row_terms, args.m, x, sizes.keys);
    }
  }
}

// Levels of 16 codes.
class LevelTable {
 public:
  REPQUANT_INLINE512 LevelTable(const int32_t* levels, int64_t highest_code)
      : levels_(levels), short_(highest_code < 16), first_(_mm512_loadu_si512(levels)) {}
  REPQUANT_INLINE512 __m512i operator()(__m512i code) const {
    return short_ ? _mm512_permutexvar_epi32(code, first_)
                  : _mm512_i32gather_epi32(code, levels_, 4);
  }

 private:
  const int32_t* levels_;
  bool short_;
  __m512i first_;
};

// Bias and mask of one query, as in the portable row.
REPQUANT_AVX512VNNI void add_terms512(const AttentionI8Args& args, int64_t query, float* x) {
  const int64_t keys = args.shape.key_rows;
  const __m512 none = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t t = 0; t < keys; t += 16) {
    const __mmask16 live = float512::first_lanes(keys - t);
    __m512 v = _mm512_loadu_ps(x + t);
    if (args.bias != nullptr)
      v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(live, args.bias + query * keys + t));
    if (args.mask != nullptr) {
      const __m128i keep = _mm_maskz_loadu_epi8(live, args.mask + query * keys + t);
      v = _mm512_mask_mov_ps(none, _mm_test_epi8_mask(keep, keep), v);
    }
    _mm512_storeu_ps(x + t, v);
  }
}

REPQUANT_INLINE512 float largest(const float* x, int64_t keys) {
  __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t t = 0; t < keys; t += 16)
    most = _mm512_mask_max_ps(most, float512::first_lanes(keys - t), _mm512_loadu_ps(x + t), most);
  return _mm512_reduce_max_ps(most);
}

// x := exp(x - most), zeros from `live` on; returns the lane sum.
REPQUANT_ALONE float exponentials(float* x, int64_t live, int64_t padded, float most) {
  constexpr int kSide = 4;
  __m512 lanes = _mm512_setzero_ps();
  int64_t t = 0;
  for (; t + 16 * kSide <= live; t += 16 * kSide) {
    const auto e = float512::exp<true>(
        float512::sub(float512::load<kSide>(x + t), float512::constant<kSide>(most)));
    float512::store(x + t, e);
#pragma GCC unroll 4
    for (int i = 0; i < kSide; ++i) lanes = _mm512_add_ps(lanes, e.v[i]);
  }
  for (; t < padded; t += 16) {
    const auto e =
        float512::exp<true>(float512::sub(float512::load<1>(x + t), float512::constant<1>(most)));
    const __m512 kept = _mm512_maskz_mov_ps(float512::first_lanes(live - t), e.v[0]);
    _mm512_storeu_ps(x + t, kept);
    lanes = _mm512_add_ps(lanes, kept);
  }
  return float512::combine(lanes);
}

// Log codes of a row of e, as levels: one plane of bytes, or up to four. `coder` maps e to codes.
template <bool kPlanesBesideFirst, typename Coder>
REPQUANT_ALONE void encode_log(const AttentionI8Args& args, const WideSizes& sizes, const float* e,
                               const Coder& coder, uint8_t* const (&planes)[kPlanes],
                               bool two_bytes) {
  const int64_t keys = args.shape.key_rows;
  const AttentionLevels& levels = *args.levels;
  const LevelTable even(levels.even, args.level_count), odd(levels.odd, args.level_count);
  int64_t t = 0;
  if constexpr (!kPlanesBesideFirst) {
    for (; t + 64 <= keys; t += 64) {  // four chains of lookups at a time
      __m512i code[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) code[i] = coder(_mm512_loadu_ps(e + t + 16 * i));
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[0] + t + 16 * i),
                         _mm512_cvtepi32_epi8(even(code[i])));
    }
  }
  for (; t < sizes.keys; t += 16) {
    const __mmask16 live = float512::first_lanes(keys - t);
    const __m512i code = coder(_mm512_loadu_ps(e + t));
    const auto put = [&](int plane, __m512i bytes) REPQUANT_AVX512VNNI {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[plane] + t),
                       _mm512_maskz_cvtepi32_epi8(live, bytes));
    };
    const __m512i level = even(code);
    put(0, level);
    if constexpr (kPlanesBesideFirst) {
      if (two_bytes) put(1, _mm512_srli_epi32(level, 8));
      if (!levels.parity) continue;
      const __m512i other = odd(code);
      put(2, other);
      if (two_bytes) put(3, _mm512_srli_epi32(other, 8));
    }
  }
}

struct QuotientCoder {
  LogCoder coder;
  __m512 divisor;
  REPQUANT_INLINE512 __m512i operator()(__m512 e) const { return coder(_mm512_div_ps(e, divisor)); }
};

// One row of exponentials and their sum to bytes of levels; returns the divisor of the row.
REPQUANT_AVX512VNNI int64_t encode(const AttentionI8Args& args, const WideSizes& sizes, float* x,
                                   float sum, uint8_t* const (&planes)[kPlanes], bool two_bytes,
                                   RowLogCoder& row_coder) {
  const AttentionLevels& levels = *args.levels;
  if (args.codes_kind == ProbabilityCodes::kRow) {
    const vnni512::Codes codes(0, 0, 255);
    __m512i total = _mm512_setzero_si512();
    for (int64_t t = 0; t < sizes.keys; t += 16) {
      const __m512i code =
          codes.round(_mm512_mul_ps(_mm512_loadu_ps(x + t), _mm512_set1_ps(255.0f)));
      total = _mm512_add_epi32(total, code);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[0] + t), _mm512_cvtepi32_epi8(code));
    }
    return _mm512_reduce_add_epi32(total);
  }
  const __m512 divisor = _mm512_set1_ps(sum == 0.0f ? 1.0f : sum);
  if (args.codes_kind == ProbabilityCodes::kUniform) {
    const vnni512::Codes codes(0, 0, args.phi);
    const __m512 inverse = _mm512_set1_ps(args.pinv);
    for (int64_t t = 0; t < sizes.keys; t += 16) {
      const __m512 p = _mm512_div_ps(_mm512_loadu_ps(x + t), divisor);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[0] + t),
                       _mm512_cvtepi32_epi8(codes.round(_mm512_mul_ps(p, inverse))));
    }
    return 1;
  }
  if (row_coder.fits() && !two_bytes && !levels.parity) {
    row_coder.row(sum == 0.0f ? 1.0f : sum);
    encode_log<false>(args, sizes, x, row_coder, planes, false);
    return 1;
  }
  const QuotientCoder coder{LogCoder(args.thresholds, args.level_count), divisor};
  two_bytes || levels.parity ? encode_log<true>(args, sizes, x, coder, planes, two_bytes)
                             : encode_log<false>(args, sizes, x, coder, planes, two_bytes);
  return 1;
}

// Scores to bytes of levels. Stage by stage over the rows: the end of one row, a chain of dependent
// operations, hides behind the others.
REPQUANT_AVX512VNNI void encode_rows(const AttentionI8Args& args, const WideSizes& sizes,
                                     const WideScratch& scratch, int64_t rows, bool two_bytes,
                                     RowLogCoder& row_coder, int64_t* divisors) {
  const int64_t keys = args.shape.key_rows;
  float most[kRows], sums[kRows];
  for (int64_t r = 0; r < rows; ++r) most[r] = largest(scratch.x + r * sizes.keys, keys);
  for (int64_t r = 0; r < rows; ++r) {
    const bool empty = most[r] == -std::numeric_limits<float>::infinity();
    sums[r] = exponentials(scratch.x + r * sizes.keys, empty ? 0 : keys, sizes.keys, most[r]);
  }
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t* levels[kPlanes];
    for (int i = 0; i < kPlanes; ++i) levels[i] = scratch.p[i] + r * sizes.steps;
    divisors[r] =
        encode(args, sizes, scratch.x + r * sizes.keys, sums[r], levels, two_bytes, row_coder);
  }
}

REPQUANT_AVX512VNNI void multiply_plane(const WideSizes& sizes, const WideScratch& scratch,
                                        int plane) {
  int32_t* acc = scratch.acc + plane * kRows * sizes.columns;
  for (int64_t first = 0; first < sizes.columns; first += kColumns) {
    const int8_t* panel = scratch.v + first * sizes.steps;
    const int64_t quads = sizes.steps / 4;
    const uint8_t* p = scratch.p[plane];
    int32_t* to = acc + first;
    switch (std::min(kColumns, sizes.columns - first) / 16) {
      case 1:
        value_panel<1>(p, sizes.steps, panel, quads, to, sizes.columns);
        break;
      case 2:
        value_panel<2>(p, sizes.steps, panel, quads, to, sizes.columns);
        break;
      case 3:
        value_panel<3>(p, sizes.steps, panel, quads, to, sizes.columns);
        break;
      default:
        value_panel<4>(p, sizes.steps, panel, quads, to, sizes.columns);
    }
  }
}

// Sum of levels times (v - zv) of one row and column.
int64_t exact_sum(const WideSizes& sizes, const WideScratch& scratch, int plane, int64_t r,
                  int64_t c, bool two_bytes, int64_t correction) {
  const int64_t at = r * sizes.columns + c, size = kRows * sizes.columns;
  int64_t sum = scratch.acc[plane * size + at];
  if (two_bytes) sum += 256 * int64_t{scratch.acc[(plane + 1) * size + at]};
  return sum + correction;
}

REPQUANT_AVX512VNNI int64_t level_sum(const WideSizes& sizes, const WideScratch& scratch, int plane,
                                      int64_t r, bool two_bytes) {
  int64_t sum = vnni512::byte_sum(scratch.p[plane] + r * sizes.steps, sizes.steps);
  if (two_bytes)
    sum += 256 * int64_t{vnni512::byte_sum(scratch.p[plane + 1] + r * sizes.steps, sizes.steps)};
  return sum;
}

REPQUANT_AVX512VNNI void write(const AttentionI8Args& args, const WideSizes& sizes,
                               const WideScratch& scratch, int64_t r, int64_t row, int64_t divisor,
                               bool two_bytes) {
  const int64_t width = args.shape.width;
  const int64_t at = row * args.shape.heads * width + args.head * width;
  const AttentionLevels& levels = *args.levels;
  const int64_t even = (128 - args.zv) * level_sum(sizes, scratch, 0, r, two_bytes);
  if (levels.parity || two_bytes) {
    const int64_t odd =
        levels.parity ? (128 - args.zv) * level_sum(sizes, scratch, 2, r, two_bytes) : 0;
    for (int64_t c = 0; c < width; ++c) {
      const int64_t e = exact_sum(sizes, scratch, 0, r, c, two_bytes, even);
      float u = static_cast<float>(e);
      if (levels.parity)
        u = parity_combine(e, exact_sum(sizes, scratch, 2, r, c, two_bytes, odd), levels.shift);
      u = u * args.mo;
      if (args.codes != nullptr) {
        args.codes[at + c] = static_cast<uint8_t>(quantize_scaled(u, args.zero, args.lo, args.hi));
      } else {
        args.out[at + c] = u;
      }
    }
    return;
  }
  const vnni512::Codes codes(args.zero, args.lo, args.hi);
  const __m512i correction = _mm512_set1_epi32(static_cast<int32_t>(even));
  const __m512 mo = _mm512_set1_ps(args.mo),
               row_sum = _mm512_set1_ps(divisor == 0 ? 1.0f : static_cast<float>(divisor));
  for (int64_t c = 0; c < width; c += 16) {
    const __mmask16 live = float512::first_lanes(width - c);
    __m512 u = _mm512_cvtepi32_ps(
        _mm512_add_epi32(_mm512_loadu_si512(scratch.acc + r * sizes.columns + c), correction));
    if (args.codes_kind == ProbabilityCodes::kRow) u = _mm512_div_ps(u, row_sum);
    u = _mm512_mul_ps(u, mo);
    if (args.codes != nullptr) {
      codes.store(u, live, args.codes + at + c);
    } else {
      _mm512_mask_storeu_ps(args.out + at + c, live, u);
    }
  }
}

bool needs_two_bytes(const AttentionI8Args& args) {
  const auto large = [&](const int32_t* levels) {
    return std::any_of(levels, levels + args.level_count + 1, [](int32_t l) { return l > 255; });
  };
  return args.codes_kind == ProbabilityCodes::kLog &&
         (large(args.levels->even) || large(args.levels->odd));
}

REPQUANT_AVX512VNNI void run_wide(const AttentionI8Args& args) noexcept {
  if (!fits(args.shape) || args.levels->wide) return run(args);
  const WideSizes sizes(args.shape);
  Carver carver(args.scratch);
  const WideScratch scratch = carve_wide(sizes, carver);
  const bool two_bytes = needs_two_bytes(args);
  const int planes = args.levels->parity ? kPlanes : two_bytes ? 2 : 1;
  RowLogCoder row_coder(args.thresholds,
                        args.codes_kind == ProbabilityCodes::kLog ? args.level_count : 0);
  if (args.load) {
    load_keys(args, sizes, scratch);
    load_values(args, sizes, scratch);
    for (uint8_t* plane : scratch.p)
      std::memset(plane, 0, static_cast<size_t>(kRows * sizes.steps));
  }
  for (int64_t done = 0; done < args.rows; done += kRows) {
    const int64_t row = args.first_row + done, rows = std::min(kRows, args.rows - done);
    score_rows(args, sizes, scratch, row, rows);
    for (int64_t r = 0; r < rows && (args.bias != nullptr || args.mask != nullptr); ++r)
      add_terms512(args, row + r, scratch.x + r * sizes.keys);
    int64_t divisor[kRows] = {};
    encode_rows(args, sizes, scratch, rows, two_bytes, row_coder, divisor);
    for (int plane = 0; plane < planes; ++plane) {
      if (plane % 2 == 1 && !two_bytes) continue;
      multiply_plane(sizes, scratch, plane);
    }
    for (int64_t r = 0; r < rows; ++r)
      write(args, sizes, scratch, r, row + r, divisor[r], two_bytes);
  }
}

}  // namespace

const AttentionI8Kernel attention_i8_avx512vnni{"attention_i8/avx512vnni", Isa::kAvx512Vnni,
                                                wide_scratch_bytes, run_wide};

}  // namespace repquant::runtime
#endif
