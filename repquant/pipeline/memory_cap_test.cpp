#include "repquant/pipeline/memory_cap.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "repquant/core/error.h"
#include "repquant/core/machine.h"

namespace repquant {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

Graph graph_of(const std::vector<SymbolicShape>& shapes) {
  Graph graph;
  for (const SymbolicShape& shape : shapes)
    graph.add_value(
        {std::string("v").append(std::to_string(graph.value_count())), DType::kF32, shape, -1, {}});
  return graph;
}

TEST(MemoryCap, GrowsWithSamplesThreadsAndShapes) {
  const Graph graph = graph_of({{{-1, "n"}, {256, ""}, {1024, ""}}, {{-1, "n"}, {7, ""}}});
  const double base = needed_memory(graph_of({}), 32, 1);
  EXPECT_GT(base, 64.0 * kMiB);  // the libraries alone
  const double one = needed_memory(graph, 1, 1);
  EXPECT_GT(one, base + kMiB);  // the symbolic batch counts as one
  EXPECT_LT(one, base + 100.0 * kMiB);
  EXPECT_GT(needed_memory(graph, 33, 1), one + 32 * 1.0 * kMiB);
  EXPECT_GT(needed_memory(graph, 1, 2), one + 8 * 1.0 * kMiB);
  EXPECT_GT(needed_memory(graph, 1, 1, 16), one + 4 * 16 * 1.0 * kMiB);
  Graph weights = graph_of({});
  weights.add_constant("w", Tensor(DType::kF32, {1024, 1024}));
  EXPECT_GE(needed_memory(weights, 1, 1), needed_memory(graph_of({}), 1, 1) + 8.0 * kMiB);
  // Shapes whose size fits into no integer are no surprise.
  const int64_t huge = int64_t{1} << 62;
  EXPECT_GT(needed_memory(graph_of({{{huge, ""}, {huge, ""}, {huge, ""}}}), 1, 1), 1e50);
}

TEST(MemoryCap, RefusesAndNamesTheSmallestThatWorks) {
  const double needed = 300.5 * kMiB;
  EXPECT_NO_THROW(check_memory(needed, 0));
  EXPECT_NO_THROW(check_memory(needed, 301 * kMiB));
  try {
    check_memory(needed, 300 * kMiB);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_NE(std::string(error.what()).find("at least 301 MiB, got 300 MiB"), std::string::npos)
        << error.what();
    EXPECT_NE(error.hint().find("--memory 301MiB"), std::string::npos) << error.hint();
  }
  ASSERT_GT(memory_bytes(), 0u);
  EXPECT_THROW(check_memory(1e30, 0), Error);  // more than is installed
}

// In a child: the limit is the process's.
int in_child(uint64_t cap, uint64_t bytes, bool destroyed) {
  const pid_t child = ::fork();
  if (child == 0) {
    int exit = 0;
    try {
      auto limit = std::make_unique<MemoryLimit>(cap);
      if (destroyed) limit.reset();
      std::unique_ptr<char[]> block(new char[bytes]);
      std::memset(block.get(), 1, bytes);
      exit = block[bytes - 1] - 1;
    } catch (const std::bad_alloc&) {
      exit = 7;
    }
    ::_exit(exit);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
TEST(MemoryCap, AllocationFailsBeyondTheLimit) {
  const uint64_t cap =
      private_memory_bytes() + std::max(file_memory_bytes(), 96 * kMiB) + 64 * kMiB;
  EXPECT_EQ(in_child(cap, 32 * kMiB, false), 0);
  EXPECT_EQ(in_child(cap, 256 * kMiB, false), 7);
  EXPECT_EQ(in_child(cap, 256 * kMiB, true), 0);  // gone with the object
  EXPECT_EQ(in_child(0, 256 * kMiB, false), 0);   // no cap
}
#endif

}  // namespace
}  // namespace repquant
