#include "repquant/runtime/kernels/activation/activation.h"
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/activation/portable.h"
#include "repquant/runtime/kernels/float512.h"

#define REPQUANT_INLINE_WIDE REPQUANT_INLINE512
namespace repquant::runtime {
namespace {
using namespace float512;
}  // namespace
}  // namespace repquant::runtime
#include "repquant/runtime/kernels/activation/wide.h"

namespace repquant::runtime {
namespace {

template <FunctionKind kKind> REPQUANT_AVX512VNNI void apply(const ActivationArgs& args) {
  constexpr int kSide = 4;
  int64_t i = 0;
  for (; i + 16 * kSide <= args.count; i += 16 * kSide)
    store(args.out + i, value<kKind>(load<kSide>(args.x + i)));
  for (; i < args.count; i += 16) {
    const __mmask16 live = first_lanes(args.count - i);
    Pack<1> x;
    x.v[0] = _mm512_maskz_loadu_ps(live, args.x + i);
    _mm512_mask_storeu_ps(args.out + i, live, value<kKind>(x).v[0]);
  }
}

void run_wide(const ActivationArgs& args) noexcept {
  switch (args.kind) {
    case FunctionKind::kGeluErf:
      return apply<FunctionKind::kGeluErf>(args);
    case FunctionKind::kGeluTanh:
      return apply<FunctionKind::kGeluTanh>(args);
    case FunctionKind::kSilu:
      return apply<FunctionKind::kSilu>(args);
    case FunctionKind::kRelu:
      return apply<FunctionKind::kRelu>(args);
    case FunctionKind::kRelu6:
      return apply<FunctionKind::kRelu6>(args);
    case FunctionKind::kSigmoid:
      return apply<FunctionKind::kSigmoid>(args);
    case FunctionKind::kTanh:
      return apply<FunctionKind::kTanh>(args);
    default:
      return run(args);
  }
}

}  // namespace

const ActivationKernel activation_avx512vnni{"activation/avx512vnni", Isa::kAvx512Vnni, run_wide};

}  // namespace repquant::runtime
#endif
