#include "repquant/graph/dims.h"

#include <gtest/gtest.h>

#include "repquant/graph/infer.h"
#include "repquant/graph/testing.h"

namespace repquant {
namespace {

using graph_testing::dim;

std::string text(const Dim& d) { return to_string(SymbolicShape{d}); }

TEST(Dims, ProductsAreCanonical) {
  EXPECT_EQ(text(multiply(dim("n"), multiply(dim(3), dim("h")))), "[3*h*n]");
  EXPECT_EQ(multiply(dim("h"), dim("n")), multiply(dim("n"), dim("h")));
  EXPECT_EQ(text(multiply(dim(0), dim("n"))), "[0]");
  EXPECT_EQ(text(multiply(dim("n"), Dim{})), "[?]");
  EXPECT_EQ(text(product(SymbolicShape{})), "[1]");
}

TEST(Dims, DivisionIsExactOrNothing) {
  EXPECT_EQ(divide(multiply(dim("n"), dim(768)), dim(192)).value(), multiply(dim("n"), dim(4)));
  EXPECT_EQ(divide(multiply(dim("n"), dim(768)), multiply(dim("n"), dim(768))).value(), dim(1));
  EXPECT_EQ(divide(dim("n"), dim(2)), std::nullopt);
  EXPECT_EQ(divide(dim(6), dim(0)), std::nullopt);
  EXPECT_EQ(text(floor_divide(dim("n"), 2)), "[floor(n/2)]");
  EXPECT_EQ(text(floor_divide(multiply(dim("n"), dim(4)), 2)), "[2*n]");
}

TEST(Dims, SumsMergeTheirConstants) {
  const Dim longer = add(dim("n"), 5);
  EXPECT_EQ(text(longer), "[(n+5)]");
  EXPECT_EQ(add(longer, -5), dim("n"));
  EXPECT_EQ(text(add(longer, -6)), "[(n-1)]");
  EXPECT_EQ(text(add(dim("n"), dim("n"))), "[2*n]");
  EXPECT_EQ(text(add(dim("b"), dim("a"))), "[(a+b)]");
  EXPECT_EQ(text(add(add(dim("b"), dim("a")), 2)), "[((a+b)+2)]");
  EXPECT_EQ(add(dim(3), -5), dim(0));
}

TEST(Dims, BroadcastAndMerge) {
  EXPECT_EQ(broadcast(dim(1), dim("n")), dim("n"));
  EXPECT_EQ(broadcast(dim(4), dim("n")), dim(4));
  EXPECT_EQ(broadcast(dim("m"), dim("n")), Dim{});
  EXPECT_EQ(broadcast(dim(4), dim(5)), std::nullopt);
  EXPECT_EQ(merge(dim(1), dim(5)), std::nullopt);
  EXPECT_EQ(merge(Dim{}, dim("n")), dim("n"));
}

TEST(Dims, OverflowIsAnErrorNotANumber) {
  EXPECT_THROW(multiply(dim(INT64_MAX), dim(2)), Error);
  EXPECT_THROW(add(dim(INT64_MAX), 1), Error);
  EXPECT_THROW(multiply(multiply(dim("n"), dim(INT64_MAX)), dim(2)), Error);
}

TEST(Dims, SymbolsFromFilesCannotBreakExpressions) {
  EXPECT_EQ(symbol_from_file("batch"), "batch");
  EXPECT_EQ(symbol_from_file("s0 + 1"), "(s0+1)");
  EXPECT_EQ(symbol_from_file("a)*(b"), "");
  EXPECT_EQ(symbol_from_file("17"), "");
  EXPECT_EQ(symbol_from_file("\n"), "");
  EXPECT_EQ(symbol_from_file(std::string(1000, 'x')), "");
}

TEST(Dims, LongExpressionsBecomeUnknown) {
  Dim d = dim("n");
  for (int i = 0; i < 100; ++i) d = floor_divide(add(d, 1), 2);
  EXPECT_TRUE(is_unknown(d));
}

}  // namespace
}  // namespace repquant
