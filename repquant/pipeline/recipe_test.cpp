#include "repquant/pipeline/recipe.h"

#include <fstream>
#include <functional>
#include <iterator>

#include <gtest/gtest.h>

#include "repquant/core/error.h"
#include "repquant/graph/testing.h"
#include "repquant/pipeline/quantize.h"

namespace repquant {
namespace {

FieldList options_of(std::string_view) { return {{"steps", "", int64_t{0}, Between{0, 9}, {}}}; }

Recipe parsed(const std::string& text) { return parse_recipe(text, "test", options_of); }

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return {};
}

constexpr const char* kWithAll = R"(scheme = "w4a4"
head_bits = 8
granularity = "head"
[[pass]]
method = "m"
[[layer]]
match = "blocks.0.*"
granularity = "tensor"
)";

TEST(Recipe, HeadBitsAndGranularityMeanTheSameWrittenAndReadAgain) {
  const Recipe recipe = parsed(kWithAll);
  EXPECT_EQ(recipe.head_bits, 8);
  EXPECT_EQ(recipe.granularity, "head");
  ASSERT_EQ(recipe.layers.size(), 1u);
  EXPECT_EQ(recipe.layers[0].granularity, "tensor");
  EXPECT_EQ(parsed(to_toml(recipe)), recipe);
  EXPECT_EQ(parsed(to_json(recipe).dump()), recipe);
}

// Recipes lie inside artifacts: a key that is not used must not change their bytes.
TEST(Recipe, UnusedKeysAreNotWritten) {
  const Recipe recipe = parsed("[[pass]]\nmethod = \"m\"\n");
  EXPECT_EQ(
      to_toml(recipe),
      "version = 1\nscheme = \"w8a8\"\n\n[data]\nsamples = 32\nseed = 0\n\n[[pass]]\nmethod = "
      "\"m\"\n");
  EXPECT_EQ(to_json(recipe).count("head_bits") + to_json(recipe).count("granularity"), 0u);
}

TEST(Recipe, RefusesValuesOutsideWhatIsSupported) {
  for (const char* value : {"1", "9", "\"8\"", "8.0"}) {
    const std::string text = refusal([&] { parsed(std::string("head_bits = ") + value); });
    EXPECT_NE(text.find(":1:13: head_bits: expected an integer of 2 to 8"), std::string::npos)
        << text;
  }
  EXPECT_NE(refusal([] { parsed("granularity = \"haed\""); }).find("nearest: head"),
            std::string::npos);
  EXPECT_NE(refusal([] {
              parsed("[[layer]]\nmatch = \"*\"\ngranularity = \"group\"");
            }).find("test:3:15: unknown granularity \"group\""),
            std::string::npos);
  EXPECT_NE(refusal([] { parsed("head_bit = 8"); }).find("nearest: head_bits"), std::string::npos);
}

TEST(Recipe, TheExampleOfTheDocsIsARecipe) {
  std::ifstream file(graph_testing::repository() / "docs" / "cli.md");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  const size_t begin = page.find("```toml\n") + 8, end = page.find("```", begin);
  ASSERT_LT(end, page.size());
  const Recipe recipe = parse_recipe(page.substr(begin, end - begin), "docs", registry_options);
  EXPECT_EQ(recipe.head_bits, 8);
  EXPECT_EQ(effective_recipe(recipe, registry_options).passes.size(), 1u);
}

TEST(Recipe, SetChangesKeysOfTheRecipeAlone) {
  Recipe recipe = parsed(kWithAll);
  apply_set(recipe, "head_bits=6", options_of);
  apply_set(recipe, "granularity=tensor", options_of);
  apply_set(recipe, "scheme=w3a3", options_of);
  Recipe want = parsed(kWithAll);
  want.head_bits = 6;
  want.granularity = "tensor";
  want.scheme = {3, 3};
  EXPECT_EQ(recipe, want);
  for (const char* bad : {"head_bits=1", "head_bits=", "granularity=row", "heads=8", "granularity"})
    EXPECT_NE(refusal([&] { apply_set(recipe, bad, options_of); }), "") << bad;
  EXPECT_EQ(recipe, want);
}

}  // namespace
}  // namespace repquant
