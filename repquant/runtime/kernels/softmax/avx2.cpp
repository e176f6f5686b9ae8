#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/float256.h"
#include "repquant/runtime/kernels/softmax/portable.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kSide = 8, kNarrow = 16;

REPQUANT_AVX2 void softmax256(const SoftmaxArgs& args) noexcept {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const int64_t count = args.channels;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * count;
    float* out = args.out + row * count;
    __m256 most = _mm256_set1_ps(kNone);
    for (int64_t i = 0; i < count; i += 8) {  // a NaN in `x` is passed over
      const __m256i live = float256::first_lanes(count - i);
      const __m256 v = _mm256_blendv_ps(_mm256_set1_ps(kNone), _mm256_maskload_ps(x + i, live),
                                        _mm256_castsi256_ps(live));
      most = _mm256_max_ps(v, most);
    }
    const float largest = float256::largest_lane(most);
    if (largest == kNone) {
      for (int64_t i = 0; i < count; ++i) out[i] = 0.0f;
      continue;
    }
    __m256 lanes[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
      const auto e =
          float256::exp(float256::sub(float256::load<2>(x + i), float256::constant<2>(largest)));
      float256::store(out + i, e);
      lanes[0] = _mm256_add_ps(lanes[0], e.v[0]);
      lanes[1] = _mm256_add_ps(lanes[1], e.v[1]);
    }
    for (; i < count; i += 8) {
      const __m256i live = float256::first_lanes(count - i);
      float256::Pack<1> shifted;
      shifted.v[0] = _mm256_sub_ps(_mm256_maskload_ps(x + i, live), _mm256_set1_ps(largest));
      const __m256 e = _mm256_and_ps(float256::exp(shifted).v[0], _mm256_castsi256_ps(live));
      lanes[i / 8 % 2] = _mm256_add_ps(lanes[i / 8 % 2], e);
      _mm256_maskstore_ps(out + i, live, e);
    }
    const float sum = float256::combine(lanes[0], lanes[1]);
    if (sum == 0.0f) continue;
    const __m256 divisor = _mm256_set1_ps(sum);
    for (int64_t i = 0; i < count; i += 8) {
      const __m256i live = float256::first_lanes(count - i);
      _mm256_maskstore_ps(out + i, live, _mm256_div_ps(_mm256_maskload_ps(out + i, live), divisor));
    }
  }
}

// Eight rows of up to 16 numbers: as many vectors as a row has numbers, whose elements find their
// row's size by `own`.
REPQUANT_AVX2 void narrow_rows(const SoftmaxArgs& args, const int32_t* own, int64_t row) {
  const int64_t count = args.channels;
  const float* x = args.x + row * count;
  float* out = args.out + row * count;
  const __m256i low = float256::first_lanes(count), high = float256::first_lanes(count - 8);
  alignas(32) float squares[kSide];
#pragma GCC unroll 8
  for (int64_t r = 0; r < kSide; ++r) {
    const __m256 a = _mm256_maskload_ps(x + r * count, low);
    const __m256 b = count > 8 ? _mm256_maskload_ps(x + r * count + 8, high) : _mm256_setzero_ps();
    squares[r] = float256::combine(_mm256_mul_ps(a, a), _mm256_mul_ps(b, b));
  }
  // A NaN gives eps.
  const __m256 sizes =
      _mm256_max_ps(_mm256_sqrt_ps(_mm256_load_ps(squares)), _mm256_set1_ps(args.eps));
  for (int64_t v = 0; v < count; ++v) {
    const __m256i row_of = _mm256_load_si256(reinterpret_cast<const __m256i*>(own + 8 * v));
    const __m256 divisor = _mm256_permutevar8x32_ps(sizes, row_of);
    _mm256_storeu_ps(out + 8 * v, _mm256_div_ps(_mm256_loadu_ps(x + 8 * v), divisor));
  }
}

REPQUANT_AVX2 void l2_norm256(const SoftmaxArgs& args) noexcept {
  int64_t done = 0;
  if (args.channels <= kNarrow && args.rows >= kSide) {
    alignas(32) int32_t own[kSide * kNarrow];
    for (int64_t i = 0; i < kSide * args.channels; ++i)
      own[i] = static_cast<int32_t>(i / args.channels);
    for (; done + kSide <= args.rows; done += kSide) narrow_rows(args, own, done);
  }
  SoftmaxArgs rest = args;
  rest.x += done * args.channels, rest.out += done * args.channels, rest.rows -= done;
  l2_norm(rest);
}

}  // namespace

const SoftmaxKernel softmax_avx2{"softmax/avx2", Isa::kAvx2, softmax256, l2_norm256};

}  // namespace repquant::runtime
#endif
