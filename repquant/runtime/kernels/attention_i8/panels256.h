#pragma once
// Operands of the rows of 256-bit vectors, and their scratch. A panel holds one dword for every key
// (column of V) and step: four codes minus 128 for vpdpbusd, or two codes minus their zero point as
// int16 for vpmaddwd. REPQUANT_TARGET is the attribute of the file that includes this.
#include <cstring>

#include "repquant/runtime/kernels/attention_i8/portable.h"
#include "repquant/runtime/kernels/log_coder256.h"

namespace repquant::runtime {
namespace {

// Of its own, so that the accumulators have all registers.
#define REPQUANT_ALONE REPQUANT_TARGET __attribute__((noinline))
#define REPQUANT_INLINE_TARGET REPQUANT_TARGET __attribute__((always_inline)) inline

constexpr int64_t kTileRows = 6, kPanelLanes = 16;
constexpr int64_t kMaxKeys = 32768;  // int32 sums of codes times differences of codes

struct Sizes256 {
  int64_t step;                  // codes of a dword
  int64_t depth, keys, columns;  // padded: width, key rows, width as columns of V
  int64_t depth_steps() const { return depth / step; }
  int64_t key_steps() const { return keys / step; }
  Sizes256(const AttentionI8Shape& shape, bool bytes)
      : step(bytes ? 4 : 2),
        depth(round_up(shape.width, step)),
        keys(round_up(shape.key_rows, kPanelLanes)),
        columns(round_up(shape.width, kPanelLanes)) {}
};

struct Scratch256 {
  int32_t *k, *v;      // panels [keys/16][steps][16], [columns/16][steps][16]
  int32_t* key_terms;  // [keys]
  int32_t* q;          // [6][depth steps], rows that cannot be read in place
  float* x;            // [6][keys]
  uint8_t* codes;      // [keys]
  int32_t* p[2];       // [6][key steps], even and odd
  int32_t* acc[2];     // [6][columns]
};

Scratch256 carve256(const Sizes256& sizes, Carver& carver) {
  Scratch256 scratch{};
  scratch.k = carver.take<int32_t>(sizes.keys * sizes.depth_steps());
  scratch.v = carver.take<int32_t>(sizes.columns * sizes.key_steps());
  scratch.key_terms = carver.take<int32_t>(sizes.keys);
  scratch.q = carver.take<int32_t>(kTileRows * sizes.depth_steps());
  scratch.x = carver.take<float>(kTileRows * sizes.keys);
  scratch.codes = carver.take<uint8_t>(sizes.keys);
  for (int i = 0; i < 2; ++i) {
    scratch.p[i] = carver.take<int32_t>(kTileRows * sizes.key_steps());
    scratch.acc[i] = carver.take<int32_t>(kTileRows * sizes.columns);
  }
  return scratch;
}

bool fits256(const AttentionI8Shape& shape) {
  return shape.key_rows <= kMaxKeys && shape.width <= kMaxKeys;
}

size_t scratch_bytes256(const AttentionI8Shape& shape) {
  const size_t portable = scratch_bytes(shape);
  if (!fits256(shape)) return portable;
  Carver carver(nullptr);
  carve256(Sizes256(shape, false), carver);  // the larger of the two
  return std::max(static_cast<size_t>(carver.used()), portable);
}

// What a call has in common for all its rows.
struct Call256 {
  const AttentionI8Args& args;
  Sizes256 sizes;
  Scratch256 scratch;
  bool short_table;  // levels are bytes, of 15 codes at most, and zero
  alignas(16) uint8_t small[16] = {};
};

// ---- loading ------------------------------------------------------------------------------------
REPQUANT_INLINE256 void transpose8(__m256i (&r)[8]) {
  __m256i a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    a[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
    r[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
  }
}

// Eight dwords of a row of codes, `left` codes long; zero differences behind its end.
template <bool kBytes>
REPQUANT_INLINE256 __m256i eight_dwords(const uint8_t* row, int64_t left, int32_t zero) {
  constexpr int64_t kCodes = kBytes ? 32 : 16;
  alignas(32) uint8_t part[kCodes];
  if (left < kCodes) {
    std::memset(part, 0x80, sizeof(part));
    std::memcpy(part, row, static_cast<size_t>(left));
    row = part;
  }
  if constexpr (kBytes) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
    return _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
  } else {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row));
    const __m256i index = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i live = _mm256_cmpgt_epi16(
        _mm256_set1_epi16(static_cast<int16_t>(std::min<int64_t>(left, 16))), index);
    const __m256i difference = _mm256_sub_epi16(_mm256_cvtepu8_epi16(codes),
                                                _mm256_set1_epi16(static_cast<int16_t>(zero)));
    return _mm256_and_si256(difference, live);
  }
}

template <bool kBytes> REPQUANT_TARGET void load_keys(const Call256& call) {
  const AttentionI8Args& args = call.args;
  const AttentionI8Shape& shape = args.shape;
  const int64_t stride = shape.heads * shape.width, steps = call.sizes.depth_steps();
  const uint8_t* from = args.k + args.head * shape.width;
  for (int64_t t = 0; t < call.sizes.keys; t += 8) {
    int32_t* to = call.scratch.k + t / kPanelLanes * kPanelLanes * steps + t % kPanelLanes;
    for (int64_t s = 0; s < steps; s += 8) {
      const int64_t done = s * call.sizes.step;
      __m256i rows[8];
#pragma GCC unroll 8
      for (int64_t i = 0; i < 8; ++i) {
        rows[i] = t + i < shape.key_rows ? eight_dwords<kBytes>(from + (t + i) * stride + done,
                                                                shape.width - done, args.zk)
                                         : _mm256_setzero_si256();
      }
      transpose8(rows);
#pragma GCC unroll 8
      for (int64_t i = 0; i < 8; ++i) {
        if (s + i < steps)
          _mm256_store_si256(reinterpret_cast<__m256i*>(to + (s + i) * kPanelLanes), rows[i]);
      }
    }
  }
  std::memset(call.scratch.key_terms, 0, static_cast<size_t>(call.sizes.keys) * 4);
  if (!kBytes) return;
  const auto zq = static_cast<uint32_t>(args.zq), zk = static_cast<uint32_t>(args.zk);
  const uint32_t fixed = static_cast<uint32_t>(shape.width) * zq * zk;
  for (int64_t t = 0; t < shape.key_rows; ++t) {
    call.scratch.key_terms[t] =
        static_cast<int32_t>(fixed - zq * float256::byte_sum(from + t * stride, shape.width));
  }
}

template <bool kBytes> REPQUANT_TARGET void load_values(const Call256& call) {
  const AttentionI8Args& args = call.args;
  const AttentionI8Shape& shape = args.shape;
  const int64_t stride = shape.heads * shape.width, steps = call.sizes.key_steps();
  constexpr int kStep = kBytes ? 4 : 2;
  const __m256i zero = _mm256_set1_epi16(static_cast<int16_t>(args.zv));
  for (int64_t c = 0; c < shape.width; c += kPanelLanes) {
    const uint8_t* from = args.v + args.head * shape.width + c;
    const int64_t left = shape.width - c;
    int32_t* to = call.scratch.v + c * steps;
    for (int64_t s = 0; s < steps; ++s, to += kPanelLanes) {
      __m128i rows[kStep];
#pragma GCC unroll 4
      for (int i = 0; i < kStep; ++i) {
        const int64_t t = s * kStep + i;
        alignas(16) uint8_t part[16] = {};
        const uint8_t* row = from + t * stride;
        if (t < shape.key_rows && left < 16)
          std::memcpy(part, row, static_cast<size_t>(left)), row = part;
        rows[i] = t < shape.key_rows ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(row))
                                     : _mm_setzero_si128();
      }
      const __m128i low = _mm_unpacklo_epi8(rows[0], rows[1]),
                    high = _mm_unpackhi_epi8(rows[0], rows[1]);
      if constexpr (kBytes) {
        const __m128i low23 = _mm_unpacklo_epi8(rows[2], rows[3]),
                      high23 = _mm_unpackhi_epi8(rows[2], rows[3]), flip = _mm_set1_epi8(-128);
        auto* at = reinterpret_cast<__m128i*>(to);
        _mm_store_si128(at, _mm_xor_si128(flip, _mm_unpacklo_epi16(low, low23)));
        _mm_store_si128(at + 1, _mm_xor_si128(flip, _mm_unpackhi_epi16(low, low23)));
        _mm_store_si128(at + 2, _mm_xor_si128(flip, _mm_unpacklo_epi16(high, high23)));
        _mm_store_si128(at + 3, _mm_xor_si128(flip, _mm_unpackhi_epi16(high, high23)));
      } else {
        auto* at = reinterpret_cast<__m256i*>(to);
        _mm256_store_si256(at, _mm256_sub_epi16(_mm256_cvtepu8_epi16(low), zero));
        _mm256_store_si256(at + 1, _mm256_sub_epi16(_mm256_cvtepu8_epi16(high), zero));
      }
    }
  }
}

}  // namespace
}  // namespace repquant::runtime
