#include "repquant/core/fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Options {
  int bits = 4;
  double ratio = 0.5;
  bool fold = true;
  std::string clip = "dual";
  template <class V> void visit(V&& v) {
    v(bits, "bits", "Bits a code", Between{2, 8});
    v(ratio, "ratio", "A ratio", Between{0, 1});
    v(fold, "fold", "Fold scales");
    v(clip, "clip", "Clipping", Choices{{"none", "dual", "percentile"}});
  }
};

std::string message_of(const OptionValues& values) {
  try {
    read_fields<Options>(values, "repquant");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "";
}

TEST(Fields, ListHoldsDefaultsRangesAndChoices) {
  const FieldList list = list_fields<Options>();
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[0].name, "bits");
  EXPECT_EQ(std::get<int64_t>(list[0].default_value), 4);
  EXPECT_EQ(list[0].range->high, 8);
  EXPECT_THAT(list[3].choices, ElementsAre("none", "dual", "percentile"));
}

TEST(Fields, ValuesOverwriteDefaultsInOrder) {
  const Options o = read_fields<Options>(
      {{"bits", int64_t{3}}, {"ratio", int64_t{1}}, {"fold", false}, {"bits", int64_t{8}}},
      "repquant");
  EXPECT_EQ(o.bits, 8);
  EXPECT_EQ(o.ratio, 1.0);
  EXPECT_FALSE(o.fold);
  EXPECT_EQ(o.clip, "dual");
}

TEST(Fields, WrongValuesNameWhatIsExpected) {
  EXPECT_THAT(message_of({{"bits", int64_t{9}}}), HasSubstr("[2, 8]"));
  EXPECT_THAT(message_of({{"bits", 4.5}}), HasSubstr("bits"));
  EXPECT_THAT(message_of({{"clip", std::string("dial")}}), HasSubstr("none, dual, percentile"));
  EXPECT_THAT(message_of({{"fold", int64_t{1}}}), HasSubstr("true or false"));
  EXPECT_THAT(message_of({{"bit", int64_t{4}}}), HasSubstr("nearest: bits"));
}

TEST(Fields, TextIsParsedByType) {
  const FieldList list = list_fields<Options>();
  EXPECT_EQ(std::get<int64_t>(parse_field(list[0], "3")), 3);
  EXPECT_EQ(std::get<double>(parse_field(list[1], "0.25")), 0.25);
  EXPECT_EQ(std::get<bool>(parse_field(list[2], "false")), false);
  for (const auto& [field, text] :
       {std::pair{0, "3x"}, {0, ""}, {0, "99999999999999999999"}, {1, "nan"}, {2, "yes"}}) {
    EXPECT_THROW(parse_field(list[static_cast<size_t>(field)], text), Error) << text;
  }
}

TEST(Fields, NearestRanksByEditDistance) {
  EXPECT_THAT(nearest("repquan", {"gptq", "repq_vit", "repquant"}), ElementsAre("repquant"));
  EXPECT_THAT(nearest("zzzzzzzz", {"gptq", "repquant"}), testing::IsEmpty());
  EXPECT_EQ(unknown_name("method", "gptk", {"gptq"}), "unknown method \"gptk\"; nearest: gptq");
}

}  // namespace
}  // namespace repquant
