// AVX2. Products of u8 codes with s8 weights, summed in pairs into 16 bits by vpmaddubsw, are exact
// where the weights leave room for a pair; where they leave room for several, sums stay in 16 bits
// over a burst of quads. Weights of full range are widened to 16 bits, a panel and a block of rows
// at a time.
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "repquant/runtime/kernels/gemm_i8/tiles256.h"

namespace repquant::runtime {
namespace {

constexpr int kRows = 6;
constexpr int64_t kLeastBurst = 4;  // below, leaving 16 bits costs more than it saves

REPQUANT_INLINE256 __m256i load(const int8_t* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

REPQUANT_INLINE256 __m256i broadcast(const uint8_t* at) {
  int32_t quad;
  std::memcpy(&quad, at, 4);
  return _mm256_set1_epi32(quad);
}

REPQUANT_INLINE256 int64_t offset_of(const GemmI8Args& args, int64_t q) {
  return args.quad_offsets == nullptr ? 4 * q : args.quad_offsets[q];
}

// Each gives t[r][0 .. 15] for rows that begin at `a`.

// Sums in 16 bits over bursts of quads.
template <int R>
REPQUANT_INLINE256 void bursts(const GemmI8Args& args, const uint8_t* const (&a)[R],
                               const int8_t* panel, __m256i (&t)[R][2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  const int64_t quads = quads_of(args.shape), burst = INT16_MAX / args.pair_bound;
  for (int64_t begin = 0; begin < quads; begin += burst) {
    __m256i part[R][2];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) part[r][0] = part[r][1] = _mm256_setzero_si256();
    for (int64_t q = begin, end = std::min(quads, begin + burst); q < end; ++q, panel += 64) {
      const __m256i w0 = load(panel), w1 = load(panel + 32);
      const int64_t at = offset_of(args, q);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const __m256i codes = broadcast(a[r] + at);
        part[r][0] = _mm256_add_epi16(part[r][0], _mm256_maddubs_epi16(codes, w0));
        part[r][1] = _mm256_add_epi16(part[r][1], _mm256_maddubs_epi16(codes, w1));
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      t[r][0] = _mm256_add_epi32(t[r][0], _mm256_madd_epi16(part[r][0], ones));
      t[r][1] = _mm256_add_epi32(t[r][1], _mm256_madd_epi16(part[r][1], ones));
    }
  }
}

// Room for one pair.
template <int R>
REPQUANT_INLINE256 void pairs(const GemmI8Args& args, const uint8_t* const (&a)[R],
                              const int8_t* panel, __m256i (&t)[R][2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  const int64_t quads = quads_of(args.shape);
  for (int64_t q = 0; q < quads; ++q, panel += 64) {
    const __m256i w0 = load(panel), w1 = load(panel + 32);
    const int64_t at = offset_of(args, q);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256i codes = broadcast(a[r] + at);
      t[r][0] = _mm256_add_epi32(t[r][0], _mm256_madd_epi16(_mm256_maddubs_epi16(codes, w0), ones));
      t[r][1] = _mm256_add_epi32(t[r][1], _mm256_madd_epi16(_mm256_maddubs_epi16(codes, w1), ones));
    }
  }
}

// Any weights: both sides in 16 bits, vectors of four columns by a quad. `load_codes(r, q)` gives a
// quad of codes in both halves twice, `load_weights(q, v)` that of four columns.
template <int R, class Codes, class Weights>
REPQUANT_INLINE256 void widened(int64_t quads, const Codes& load_codes, const Weights& load_weights,
                                __m256i (&t)[R][2]) {
  __m256i acc[R][4];
#pragma GCC unroll 3
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) acc[r][v] = _mm256_setzero_si256();
  }
  for (int64_t q = 0; q < quads; ++q) {
    __m256i codes[R];
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) codes[r] = load_codes(r, q);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const __m256i w = load_weights(q, v);
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) float256::add_pairs(acc[r][v], codes[r], w);
    }
  }
#pragma GCC unroll 3
  for (int r = 0; r < R; ++r) {
    t[r][0] = _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[r][0], acc[r][1]), 0xd8);
    t[r][1] = _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[r][2], acc[r][3]), 0xd8);
  }
}

// Codes and weights as they are.
template <int R>
REPQUANT_INLINE256 void widened_here(const GemmI8Args& args, const uint8_t* const (&a)[R],
                                     const int8_t* panel, __m256i (&t)[R][2]) {
  widened<R>(
      quads_of(args.shape),
      [&](int r, int64_t q) REPQUANT_AVX2 {
        return _mm256_unpacklo_epi8(broadcast(a[r] + offset_of(args, q)), _mm256_setzero_si256());
      },
      [&](int64_t q, int v) REPQUANT_AVX2 {
        const auto* w = reinterpret_cast<const __m128i*>(panel + 64 * q + 16 * v);
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(w));
      },
      t);
}

enum class Way { kBursts, kPairs, kWidened };

Way way_of(const GemmI8Args& args) {
  if (args.pair_bound > 0 && args.pair_bound <= INT16_MAX / kLeastBurst) return Way::kBursts;
  return args.pair_bound <= INT16_MAX ? Way::kPairs : Way::kWidened;
}

template <int R, Way kWay>
__attribute__((noinline)) REPQUANT_AVX2 void tile(const GemmI8Args& args, RowCursor& cursor,
                                                  const int8_t* panel, int64_t row, int64_t first) {
  const uint8_t* a[R];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) a[r] = cursor.next();
  __m256i t[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) t[r][0] = t[r][1] = _mm256_setzero_si256();
  if constexpr (kWay == Way::kBursts) bursts<R>(args, a, panel, t);
  if constexpr (kWay == Way::kPairs) pairs<R>(args, a, panel, t);
  if constexpr (kWay == Way::kWidened) widened_here<R>(args, a, panel, t);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) tiles256::finish16(args, t[r][0], t[r][1], row + r, first);
}

template <Way kWay, int kMost>
REPQUANT_AVX2 void panel(const GemmI8Args& args, const int8_t* weights, int64_t first) {
  RowCursor cursor(args);
  int64_t row = 0;
  for (; row + kMost <= args.rows; row += kMost)
    tile<kMost, kWay>(args, cursor, weights, row, first);
  if (row + 3 <= args.rows && kMost > 3) tile<3, kWay>(args, cursor, weights, row, first), row += 3;
  for (; row < args.rows; ++row) tile<1, kWay>(args, cursor, weights, row, first);
}

// ---- rows and panels that are widened before they meet ------------------------------------------
constexpr int kTileOfWords = 2;  // eight accumulators, and room for what they meet
constexpr int64_t kBlockBytes = 48 << 10;

int64_t words_stride(const GemmI8Shape& shape) { return quad_depth(shape) + 16; }
int64_t block_rows(const GemmI8Shape& shape) {
  const int64_t fit = kBlockBytes / (2 * words_stride(shape)) / kTileOfWords * kTileOfWords;
  return std::clamp<int64_t>(fit, 6, 48);
}
size_t scratch_bytes(const GemmI8Shape& shape) {
  const int64_t words =
      tiles256::kPanel * quad_depth(shape) + block_rows(shape) * words_stride(shape);
  return sums_bytes() + static_cast<size_t>(2 * words) + 64;
}

// Lines in order: what is written behind one is the next one's, or nobody's.
REPQUANT_AVX2 void widen_row(const GemmI8Args& args, const uint8_t* row, int16_t* to) {
  const int64_t length = 4 * line_quads(args.shape);
  for (int64_t l = 0; l < args.shape.lines; ++l, to += length) {
    const uint8_t* from = line_of(args, row, l);
    for (int64_t i = 0; i < length; i += 16) {
      const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm256_cvtepu8_epi16(codes));
    }
  }
}

REPQUANT_AVX2 void widen_panel(const int8_t* panel, int64_t count, int16_t* to) {
  for (int64_t i = 0; i < count; i += 16) {
    const __m128i w = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel + i));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + i), _mm256_cvtepi8_epi16(w));
  }
}

template <int R>
__attribute__((noinline)) REPQUANT_AVX2 void tile_of_words(const GemmI8Args& args, const int16_t* a,
                                                           int64_t stride, const int16_t* panel,
                                                           int64_t row, int64_t first) {
  __m256i t[R][2];
  widened<R>(
      quads_of(args.shape),
      [&](int r, int64_t q) REPQUANT_AVX2 {
        int64_t quad;
        std::memcpy(&quad, a + r * stride + 4 * q, 8);
        return _mm256_set1_epi64x(quad);
      },
      [&](int64_t q, int v) REPQUANT_AVX2 {
        return _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 64 * q + 16 * v));
      },
      t);
#pragma GCC unroll 3
  for (int r = 0; r < R; ++r) tiles256::finish16(args, t[r][0], t[r][1], row + r, first);
}

REPQUANT_AVX2 void run_words(const GemmI8Args& args) {
  const int64_t depth = quad_depth(args.shape), stride = words_stride(args.shape);
  auto* panel =
      reinterpret_cast<int16_t*>(args.scratch + round_up(static_cast<int64_t>(sums_bytes()), 64));
  int16_t* codes = panel + tiles256::kPanel * depth;
  const int64_t block = block_rows(args.shape);
  RowCursor cursor(args);
  for (int64_t row = 0; row < args.rows; row += block) {
    const int64_t rows = std::min(block, args.rows - row);
    for (int64_t r = 0; r < rows; ++r) widen_row(args, cursor.next(), codes + r * stride);
    for (int64_t first = 0; first < args.shape.n; first += tiles256::kPanel) {
      widen_panel(static_cast<const int8_t*>(args.weights) + first * depth,
                  tiles256::kPanel * depth, panel);
      int64_t r = 0;
      for (; r + kTileOfWords <= rows; r += kTileOfWords)
        tile_of_words<kTileOfWords>(args, codes + r * stride, stride, panel, row + r, first);
      if (r < rows) tile_of_words<1>(args, codes + r * stride, stride, panel, row + r, first);
    }
  }
}

REPQUANT_AVX2 void run(const GemmI8Args& args) noexcept {
  for_row_blocks(gemm_i8_avx2, args, [](const GemmI8Args& piece) {
    const int64_t depth = quad_depth(piece.shape);
    const Way way = way_of(piece);
    if (way == Way::kWidened && piece.rows > kTileOfWords) return run_words(piece);
    for (int64_t first = 0; first < piece.shape.n; first += tiles256::kPanel) {
      const int8_t* weights = static_cast<const int8_t*>(piece.weights) + first * depth;
      if (way == Way::kBursts) panel<Way::kBursts, kRows>(piece, weights, first);
      else if (way == Way::kPairs) panel<Way::kPairs, 4>(piece, weights, first);
      else panel<Way::kWidened, 3>(piece, weights, first);
    }
  });
}

}  // namespace

const GemmI8Kernel gemm_i8_avx2{.name = "gemm_i8/avx2",
                                .isa = Isa::kAvx2,
                                .tile_rows = kRows,
                                .panel = tiles256::kPanel,
                                .weight_bytes = 1,
                                .packed_bytes = tiles256::packed_bytes,
                                .pack = tiles256::pack,
                                .scratch_bytes = scratch_bytes,
                                .sums = tiles256::row_sums,
                                .run = run};

}  // namespace repquant::runtime
#endif
