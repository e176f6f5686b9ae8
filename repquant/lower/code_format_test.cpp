#include "repquant/lower/code_format.h"

#include <gtest/gtest.h>

#include "repquant/core/error.h"
#include "repquant/core/format/elementary.h"
#include "repquant/core/format/format.h"

namespace repquant::lowering {
namespace {

QParams params_of(int bits, Format format, float scale, int32_t zero) {
  QParams params;
  params.spec.bits = bits;
  params.spec.format = format;
  params.scale = {scale};
  params.zero_point = {zero};
  return params;
}

ErrorCode refusal(const QParams& params) {
  try {
    code_format(params, "linear \"x\" input 0");
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("\"x\""), std::string::npos);
    return error.code();
  }
  ADD_FAILURE() << "accepted";
  return ErrorCode::kVerifyFailed;
}

// Stored codes stand for the same reals as the scalar meaning of the site.
TEST(CodeFormat, StoredCodesMeanWhatTheSiteMeans) {
  const std::vector<QParams> all = {params_of(4, Uniform{}, 0.21f, 6),
                                    params_of(8, Uniform{}, 0.013f, 0),
                                    params_of(4, Uniform{true, true, true}, 0.21f, 0),
                                    params_of(5, Uniform{true, false, true}, 0.21f, 0),
                                    params_of(4, Log{37.0 / 12.0, 0.17, 8, false}, 2.0f, 0),
                                    params_of(6, Log{2.0, 0.0, 8, false}, 1.0f, 0)};
  for (const QParams& params : all) {
    const CodeFormat format = code_format(params, "x");
    for (float x = -3.0f; x < 3.0f; x += 0.0371f) {
      const uint8_t code = encode(format, x);
      EXPECT_LE(code, (1 << format.bits) - 1);
      const double real = format.step() * (code - format.zero) - format.shift;
      EXPECT_NEAR(real, static_cast<double>(fake_quantize(x, params)), 1e-6);
    }
  }
}

TEST(CodeFormat, RefusesWhatNoKernelRuns) {
  QParams channel = params_of(4, Uniform{}, 0.1f, 0);
  channel.spec.granularity = PerChannel{1};
  channel.lower = {0.0f};
  EXPECT_EQ(refusal(channel), ErrorCode::kInvalidArgument);
  QParams token = params_of(4, Uniform{}, 0.1f, 0);
  token.spec.granularity = PerToken{};
  EXPECT_EQ(refusal(token), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal(params_of(4, Log{2.0, 0.0, 8, true}, 1.0f, 0)), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal(params_of(4, Log{2.0, 0.0, 16, false}, 1.0f, 0)), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal(params_of(4, Twin{}, 1.0f, 0)), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal(params_of(4, Uniform{}, 0.0f, 0)), ErrorCode::kInternal);
  QParams heads = params_of(4, Uniform{}, 0.1f, 3);
  heads.spec.granularity = PerHead{2};
  heads.scale = {0.1f, 0.2f};
  heads.zero_point = {3, 4};
  EXPECT_EQ(refusal(heads), ErrorCode::kUnsupported);
  heads.zero_point = {3, 3};
  EXPECT_EQ(code_format(heads, "x").step(1), static_cast<double>(0.2f));
}

TEST(CodeFormat, TableIsTheFunctionOfEachCode) {
  const CodeFormat input = code_format(params_of(8, Uniform{}, 0.03f, 120), "x");
  for (const QParams& out : {params_of(4, Log{37.0 / 12.0, 0.16997124, 8, false}, 3.0f, 0),
                             params_of(4, Uniform{}, 0.2f, 1)}) {
    const CodeFormat output = code_format(out, "x");
    const std::vector<uint8_t> table = code_table(input, gelu_erf_exact, output);
    for (int q = 0; q < 256; ++q) {
      const float x = static_cast<float>(gelu_erf_exact(static_cast<double>(0.03f) * (q - 120)));
      EXPECT_EQ(table[static_cast<size_t>(q)], encode(output, x));
    }
    EXPECT_GT(table[255], table[120]);
  }
}

// Base 2 at 8 bits reaches 2^-255: thresholds below f32 are merged into the zero code, nothing else
// moves.
TEST(CodeFormat, ThresholdsBelowFloatMergeIntoZero) {
  const QParams params = params_of(8, Log{1.0, 0.0, 8, false}, 1.0f, 0);
  const LogTable table = log_table(code_format(params, "x"));
  ASSERT_EQ(table.levels.size(), table.thresholds.size() + 1);
  EXPECT_EQ(table.levels.back(), 0);
  EXPECT_GT(table.thresholds.back(), 0.0f);
  const CodeFormat format = code_format(params, "x");
  for (float x = 1.0f; x > 1e-30f; x *= 0.37f) {
    EXPECT_NEAR(format.step() * encode(format, x), static_cast<double>(fake_quantize(x, params)),
                1e-7);
  }
}

}  // namespace
}  // namespace repquant::lowering
