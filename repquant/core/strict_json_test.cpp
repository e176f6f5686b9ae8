#include "repquant/core/strict_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

std::string refusal(std::string_view text, int depth = 64) {
  try {
    parse_strict_json(text, "file", depth);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruptFile);
    return e.what();
  }
  return "";
}

TEST(StrictJson, AcceptsOrdinaryText) {
  const nlohmann::json value =
      parse_strict_json(R"({"a": [1, -2, 0.5, null, true], "b": {"a": "\u00e4"}})", "file");
  EXPECT_EQ(value["a"][1], -2);
  EXPECT_EQ(value["b"]["a"], "\u00e4");
}

TEST(StrictJson, RefusesWhatFilesMustNotHold) {
  EXPECT_THAT(refusal(R"({"a": 1, "a": 2})"), testing::HasSubstr("\"a\" twice"));
  EXPECT_EQ(refusal(R"([{"a": 1}, {"a": 2}])"), "");  // distinct objects
  EXPECT_NE(refusal(R"({"x": {"a": 1, "b": {}, "a": 2}})"), "");
  for (const char* text :
       {"NaN", "[Infinity]", "[-Infinity]", "[nan]", "[1e999]", "", " ", "{", "[1,]", "{} {}",
        "[1] x", "// comment\n1", "'a'", "[01]", "[\"\x01\"]", "[\"\xff\"]", "[\"\\ud800\"]"}) {
    EXPECT_NE(refusal(text), "") << text;
  }
  EXPECT_NE(refusal("[9007199254740993]"), "");
  EXPECT_NE(refusal("[-9007199254740993]"), "");
  EXPECT_NE(refusal("[18446744073709551615]"), "");
  EXPECT_EQ(refusal("[9007199254740992, -9007199254740992]"), "");
}

TEST(StrictJson, DepthIsBounded) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_EQ(refusal(nested(64)), "");
  EXPECT_THAT(refusal(nested(65)), testing::HasSubstr("64 levels"));
  EXPECT_NE(refusal(nested(1'000'000)), "");
  EXPECT_NE(refusal(std::string(10'000'000, '[')), "");
  EXPECT_EQ(refusal("[[],[],[]]", 2), "");
}

TEST(StrictJson, Names) {
  EXPECT_TRUE(is_plain_name("blocks.0.fc1.w"));
  EXPECT_TRUE(is_plain_name("gr\u00f6\u00dfe \xF0\x9F\x98\x80"));
  for (const std::string& bad :
       {std::string(), std::string("a\n"), std::string("a\0b", 3), std::string("\x7f"),
        std::string("\xC2\x85"), std::string("\xC0\x80"), std::string("\xED\xA0\x80"),
        std::string("\xF5\x80\x80\x80"), std::string("\xE2\x82"), std::string("\x80"),
        std::string(513, 'a')}) {
    EXPECT_FALSE(is_plain_name(bad)) << printable(bad);
  }
  EXPECT_TRUE(is_plain_name(std::string(512, 'a')));
}

TEST(StrictJson, PrintableEscapes) {
  EXPECT_EQ(printable("a\n\"\\\x1b[0m"), "a\\x0a\\x22\\x5c\\x1b[0m");
  EXPECT_EQ(printable(std::string(100, 'a')).size(), 83u);
}

}  // namespace
}  // namespace repquant
