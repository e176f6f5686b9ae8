#include "repquant/core/machine.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

namespace repquant {
namespace {

TEST(Machine, NamesItself) {
  EXPECT_FALSE(cpu_name().empty());
  EXPECT_NE(cpu_name().back(), '\n');
#if defined(__x86_64__) && defined(__linux__)
  const std::vector<std::string> flags = cpu_flags();
  EXPECT_NE(std::find(flags.begin(), flags.end(), "sse2"), flags.end());
#endif
}

TEST(Machine, MemoryOfThisProcess) {
  constexpr size_t kBytes = size_t{64} << 20;
  const uint64_t before = private_memory_bytes();
  std::vector<char> block(kBytes);
  std::memset(block.data(), 1, block.size());
  EXPECT_GE(private_memory_bytes(), before + kBytes / 2);
  EXPECT_GE(peak_memory_bytes(), kBytes);
  EXPECT_GT(memory_bytes(), kBytes);
  EXPECT_EQ(block[kBytes - 1], 1);
}

TEST(Machine, TimeOnlyGrows) {
  const double before = process_cpu_seconds();
  volatile double x = 1;
  for (int i = 0; i < 1'000'000; ++i) x = x * 1.0000001;
  EXPECT_GT(process_cpu_seconds(), before);
}

}  // namespace
}  // namespace repquant
