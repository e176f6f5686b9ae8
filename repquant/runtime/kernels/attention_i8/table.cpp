#include "repquant/runtime/kernels/attention_i8/attention_i8.h"

namespace repquant::runtime {

std::span<const AttentionI8Kernel* const> attention_i8_kernels() {
#if defined(__x86_64__)
  static constexpr const AttentionI8Kernel* rows[] = {
      &attention_i8_avx512vnni, &attention_i8_avxvnni, &attention_i8_avx2, &attention_i8_scalar};
#else
  static constexpr const AttentionI8Kernel* rows[] = {&attention_i8_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
