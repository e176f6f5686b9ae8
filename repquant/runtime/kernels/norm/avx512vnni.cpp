// Rows are taken four at a time: the sums of one row are a chain, those of four hide its latency.
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/float512.h"
#include "repquant/runtime/kernels/norm/portable.h"
#include "repquant/runtime/kernels/vnni512.h"

namespace repquant::runtime {
namespace {

using float512::first_lanes;

template <int kRows> struct Statistics {
  __m512 mean[kRows], rstd[kRows];  // the same in every lane
};

template <int kRows>
REPQUANT_INLINE512 Statistics<kRows> layer_statistics(const NormArgs& args, const float* x) {
  const auto count = static_cast<float>(args.channels);
  Statistics<kRows> found;
  __m512 lanes[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) lanes[r] = _mm512_setzero_ps();
  for (int64_t i = 0; i < args.channels; i += 16) {
    const __mmask16 live = first_lanes(args.channels - i);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      lanes[r] = _mm512_add_ps(lanes[r], _mm512_maskz_loadu_ps(live, x + r * args.channels + i));
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    found.mean[r] = _mm512_set1_ps(float512::combine(lanes[r]) / count);
    lanes[r] = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < args.channels; i += 16) {
    const __mmask16 live = first_lanes(args.channels - i);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512 d = _mm512_maskz_sub_ps(
          live, _mm512_maskz_loadu_ps(live, x + r * args.channels + i), found.mean[r]);
      lanes[r] = _mm512_add_ps(lanes[r], _mm512_mul_ps(d, d));
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const float variance = float512::combine(lanes[r]) / count;
    found.rstd[r] = _mm512_set1_ps(1.0f / std::sqrt(variance + args.eps));
  }
  return found;
}

template <int kRows>
REPQUANT_INLINE512 Statistics<kRows> rms_statistics(const NormArgs& args, const float* x) {
  Statistics<kRows> found;
  __m512 lanes[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    lanes[r] = _mm512_setzero_ps();
    found.mean[r] = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < args.channels; i += 16) {
    const __mmask16 live = first_lanes(args.channels - i);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512 v = _mm512_maskz_loadu_ps(live, x + r * args.channels + i);
      lanes[r] = _mm512_add_ps(lanes[r], _mm512_mul_ps(v, v));
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const float mean = float512::combine(lanes[r]) / static_cast<float>(args.channels);
    found.rstd[r] = _mm512_set1_ps(1.0f / std::sqrt(mean + args.eps));
  }
  return found;
}

template <bool kCentred, int kRows>
REPQUANT_INLINE512 void rows(const NormArgs& args, int64_t row) {
  const float* x = args.x + row * args.channels;
  const Statistics<kRows> found =
      kCentred ? layer_statistics<kRows>(args, x) : rms_statistics<kRows>(args, x);
  const vnni512::Codes codes(args.zero, args.lo, args.hi);
  for (int64_t i = 0; i < args.channels; i += 16) {
    const __mmask16 live = first_lanes(args.channels - i);
    const __m512 gain = _mm512_maskz_loadu_ps(live, args.gain + i);
    const __m512 beta =
        args.beta == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(live, args.beta + i);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = (row + r) * args.channels + i;
      __m512 v = _mm512_maskz_loadu_ps(live, args.x + at);
      if (kCentred) v = _mm512_sub_ps(v, found.mean[r]);
      v = _mm512_mul_ps(_mm512_mul_ps(v, found.rstd[r]), gain);
      if (args.beta != nullptr) v = _mm512_add_ps(v, beta);
      if (args.codes != nullptr) {
        codes.store(v, live, args.codes + at);
      } else {
        _mm512_mask_storeu_ps(args.out + at, live, v);
      }
    }
  }
}

template <bool kCentred> REPQUANT_AVX512VNNI void norm(const NormArgs& args) noexcept {
  int64_t row = 0;
  for (; row + 4 <= args.rows; row += 4) rows<kCentred, 4>(args, row);
  for (; row < args.rows; ++row) rows<kCentred, 1>(args, row);
}

}  // namespace

const NormKernel norm_avx512vnni{"norm/avx512vnni", Isa::kAvx512Vnni, norm<true>, norm<false>,
                                 mean_rows};

}  // namespace repquant::runtime
#endif
