#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/float512.h"
#include "repquant/runtime/kernels/softmax/portable.h"

namespace repquant::runtime {
namespace {

using float512::first_lanes;

REPQUANT_INLINE512 float largest(const float* x, int64_t count) {
  __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < count; i += 16) {  // a NaN in `x` is passed over
    const __mmask16 live = first_lanes(count - i);
    most = _mm512_mask_max_ps(most, live, _mm512_maskz_loadu_ps(live, x + i), most);
  }
  return _mm512_reduce_max_ps(most);
}

REPQUANT_AVX512VNNI void softmax512(const SoftmaxArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.channels;
    float* out = args.out + row * args.channels;
    const float most = largest(x, args.channels);
    const bool empty = most == -std::numeric_limits<float>::infinity();
    __m512 lanes = _mm512_setzero_ps();
    constexpr int kChains = 4;
    int64_t i = 0;
    for (; !empty && i + 16 * kChains <= args.channels; i += 16 * kChains) {
      const auto e = float512::exp(
          float512::sub(float512::load<kChains>(x + i), float512::constant<kChains>(most)));
      float512::store(out + i, e);
#pragma GCC unroll 4
      for (int v = 0; v < kChains; ++v) lanes = _mm512_add_ps(lanes, e.v[v]);
    }
    for (; i < args.channels; i += 16) {
      const __mmask16 live = first_lanes(args.channels - i);
      float512::Pack<1> shifted;
      shifted.v[0] = _mm512_sub_ps(_mm512_maskz_loadu_ps(live, x + i), _mm512_set1_ps(most));
      const __mmask16 kept = empty ? 0 : live;
      const __m512 e = _mm512_maskz_mov_ps(kept, float512::exp(shifted).v[0]);
      lanes = _mm512_add_ps(lanes, e);
      _mm512_mask_storeu_ps(out + i, live, e);
    }
    const float sum = float512::combine(lanes);
    if (sum == 0.0f) continue;
    const __m512 divisor = _mm512_set1_ps(sum);
    for (int64_t i = 0; i < args.channels; i += 16) {
      const __mmask16 live = first_lanes(args.channels - i);
      _mm512_mask_storeu_ps(out + i, live,
                            _mm512_div_ps(_mm512_maskz_loadu_ps(live, out + i), divisor));
    }
  }
}

constexpr int64_t kSide = 16, kNarrow = 16;

// Sixteen rows of up to 16 numbers: as many vectors as a row has numbers, whose elements find their
// row's size by `own`.
REPQUANT_AVX512VNNI void narrow_rows(const SoftmaxArgs& args, const int32_t* own, int64_t row) {
  const int64_t count = args.channels;
  const float* x = args.x + row * count;
  float* out = args.out + row * count;
  const __mmask16 live = first_lanes(count);
  alignas(64) float squares[kSide];
#pragma GCC unroll 16
  for (int64_t r = 0; r < kSide; ++r) {
    const __m512 v = _mm512_maskz_loadu_ps(live, x + r * count);
    squares[r] = float512::combine(_mm512_mul_ps(v, v));
  }
  // A NaN gives eps.
  const __m512 sizes =
      _mm512_max_ps(_mm512_sqrt_ps(_mm512_load_ps(squares)), _mm512_set1_ps(args.eps));
  for (int64_t v = 0; v < count; ++v) {
    const __m512i row_of = _mm512_load_si512(own + 16 * v);
    const __m512 divisor = _mm512_permutexvar_ps(row_of, sizes);
    _mm512_storeu_ps(out + 16 * v, _mm512_div_ps(_mm512_loadu_ps(x + 16 * v), divisor));
  }
}

REPQUANT_AVX512VNNI void l2_norm512(const SoftmaxArgs& args) noexcept {
  int64_t row = 0;
  if (args.channels <= kNarrow && args.rows >= kSide) {
    alignas(64) int32_t own[kSide * kNarrow];
    for (int64_t i = 0; i < kSide * args.channels; ++i)
      own[i] = static_cast<int32_t>(i / args.channels);
    for (; row + kSide <= args.rows; row += kSide) narrow_rows(args, own, row);
  }
  for (; row < args.rows; ++row) {
    const float* x = args.x + row * args.channels;
    float* out = args.out + row * args.channels;
    __m512 lanes = _mm512_setzero_ps();
    for (int64_t i = 0; i < args.channels; i += 16) {
      const __m512 v = _mm512_maskz_loadu_ps(first_lanes(args.channels - i), x + i);
      lanes = _mm512_add_ps(lanes, _mm512_mul_ps(v, v));
    }
    const float size = std::sqrt(float512::combine(lanes));
    const __m512 divisor = _mm512_set1_ps(size > args.eps ? size : args.eps);
    for (int64_t i = 0; i < args.channels; i += 16) {
      const __mmask16 live = first_lanes(args.channels - i);
      _mm512_mask_storeu_ps(out + i, live,
                            _mm512_div_ps(_mm512_maskz_loadu_ps(live, x + i), divisor));
    }
  }
}

}  // namespace

const SoftmaxKernel softmax_avx512vnni{"softmax/avx512vnni", Isa::kAvx512Vnni, softmax512,
                                       l2_norm512};

}  // namespace repquant::runtime
#endif
