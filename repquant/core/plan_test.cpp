#include "repquant/core/plan.h"

#include <cmath>
#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/core/example_plan.h"

namespace repquant {
namespace {

using testing::HasSubstr;

Step& step_of(Plan& plan, const std::string& name) {
  for (Step& step : plan.steps) {
    if (step.name == name) return step;
  }
  throw std::logic_error("no step " + name);
}
Buffer& out_of(Plan& plan, const std::string& name) {
  return plan.buffers[static_cast<size_t>(step_of(plan, name).out[0])];
}

// The message of the refusal of a changed example; empty if it was accepted.
std::string refusal(const std::function<void(Plan&)>& change,
                    ErrorCode code = ErrorCode::kCorruptFile) {
  Plan plan = example_plan();
  change(plan);
  try {
    verify_plan(plan);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  return "";
}

template <class T> void set(Plan& plan, const std::string& tensor, size_t index, T value) {
  plan.tensors.at(tensor).data.as<T>()[index] = value;
}

// ---- packing ------------------------------------------------------------------------------------
TEST(PlanPacking, RoundTripsEveryWidth) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t k : {1, 2, 3, 4, 5, 7, 8, 9, 16, 33}) {
      std::vector<int8_t> codes;
      for (int64_t i = 0; i < 3 * k; ++i) {
        codes.push_back(static_cast<int8_t>((i * 5 + 1) % (1 << bits) - (1 << (bits - 1))));
      }
      PlanTensor tensor{.name = "w",
                        .data = pack_weights(codes, 3, k, bits),
                        .layout = layout_for(bits),
                        .bits = bits,
                        .logical_shape = {3, k},
                        .role = "w"};
      EXPECT_EQ(unpack_weights(tensor), codes) << bits << " bits, K = " << k;
    }
  }
}

TEST(PlanPacking, BytesAreAsDocumented) {
  const auto bytes = [](std::vector<int8_t> codes, int bits) {
    const Tensor packed = pack_weights(codes, 1, static_cast<int64_t>(codes.size()), bits);
    return std::vector<uint8_t>(packed.as<uint8_t>().begin(), packed.as<uint8_t>().end());
  };
  EXPECT_EQ(bytes({-8, 7, 1}, 4), (std::vector<uint8_t>{0x78, 0x01}));
  EXPECT_EQ(bytes({-2, 1, 0, -1, 1}, 2), (std::vector<uint8_t>{0b11000110, 0b01}));
  // -4 = 100, 3 = 011, -1 = 111: low planes 00, 11, 11, then high bits 1, 0, 1.
  EXPECT_EQ(bytes({-4, 3, -1}, 3), (std::vector<uint8_t>{0b111100, 0b101}));
  EXPECT_EQ(bytes({-128, 127}, 8), (std::vector<uint8_t>{0x80, 0x7F}));
  EXPECT_EQ(layout_for(5), "canon8");
}

TEST(PlanPacking, WrongCodesAndShapesAreRefused) {
  EXPECT_THROW(pack_weights(std::vector<int8_t>{8}, 1, 1, 4), Error);
  EXPECT_THROW(pack_weights(std::vector<int8_t>{-3}, 1, 1, 2), Error);
  Plan plan = example_plan();
  PlanTensor w = plan.tensors.at("fc1.w");
  w.logical_shape = {16, 9};
  EXPECT_THROW(unpack_weights(w), Error);
  w.logical_shape = {int64_t{1} << 62, int64_t{1} << 62};
  EXPECT_THROW(unpack_weights(w), Error);
  w = plan.tensors.at("projection.w");  // 5 bits in bytes
  w.data.as<uint8_t>()[0] = 16;
  EXPECT_THROW(unpack_weights(w), Error);
}

// ---- accessors ----------------------------------------------------------------------------------
TEST(Plan, AccessorsNameWhatIsMissing) {
  const Plan plan = example_plan();
  const Step& step = plan.steps[0];
  EXPECT_EQ(plan.find_tensor(step, "w"), nullptr);
  try {
    plan.tensor(step, "w");
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("\"transpose\""));
    EXPECT_THAT(e.what(), HasSubstr("\"w\""));
  }
  EXPECT_THROW(plan.integer(step, "zero"), Error);
}

// ---- verification -------------------------------------------------------------------------------
TEST(PlanVerify, TheExamplePasses) {
  EXPECT_EQ(refusal([](Plan&) {}), "");
}

TEST(PlanVerify, UnknownOpIsUnsupportedByName) {
  const std::string message =
      refusal([](Plan& p) { step_of(p, "gelu").op = "activaton"; }, ErrorCode::kUnsupported);
  EXPECT_THAT(message, HasSubstr("\"activaton\""));
  EXPECT_THAT(message, HasSubstr("activation"));
  EXPECT_THAT(message, HasSubstr("\"gelu\""));
}

TEST(PlanVerify, OrderOfBuffers) {
  const auto refused = [](const std::function<void(Plan&)>& change) {
    return !refusal(change).empty();
  };
  EXPECT_TRUE(refused([](Plan& p) { std::swap(p.steps[0], p.steps[1]); }));
  EXPECT_TRUE(refused([](Plan& p) { p.steps[1].out = p.steps[0].out; }));
  EXPECT_TRUE(refused([](Plan& p) { p.steps[1].out = p.inputs; }));
  EXPECT_TRUE(refused([](Plan& p) { p.steps[1].in = {p.steps[1].out}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.steps[1].in = {-1}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.steps[1].in = {1000}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.steps[1].out = {1000}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.steps[1].out = {}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.steps[1].in = {}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.outputs = {-1}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.outputs = {}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.inputs = {}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.inputs = {0, 0}; }));
  EXPECT_TRUE(refused([](Plan& p) { p.steps.pop_back(); }));  // an output nobody writes
  EXPECT_TRUE(refused([](Plan& p) { p.steps[3].name = p.steps[2].name; }));
}

TEST(PlanVerify, SizesOfBuffers) {
  const auto with_shape = [](Shape shape) {
    return refusal([&](Plan& p) { p.buffers[0].item_shape = shape; });
  };
  EXPECT_THAT(with_shape({}), HasSubstr("rank"));
  EXPECT_THAT(with_shape(Shape(9, 1)), HasSubstr("rank"));
  EXPECT_THAT(with_shape({-8, -4}), HasSubstr("positive sizes"));
  EXPECT_THAT(with_shape({0, 4}), HasSubstr("positive sizes"));
  EXPECT_THAT(with_shape({1 << 20, 1 << 20}), HasSubstr("2^31"));
  EXPECT_THAT(with_shape({INT64_MAX, INT64_MAX}), HasSubstr("2^31"));
  EXPECT_THAT(with_shape({int64_t{1} << 31}), HasSubstr("an item"));
  EXPECT_NE(refusal([](Plan& p) { p.buffers[0].dtype = DType::kI64; }), "");
  EXPECT_NE(refusal([](Plan& p) { p.buffers[0].bits = 8; }), "");
  EXPECT_NE(refusal([](Plan& p) { out_of(p, "qkv").bits = 9; }), "");
}

struct Case {
  const char* step;
  std::function<void(Plan&, Step&)> change;
};

// Each change breaks one operand; the message must name the step.
void expect_refusals(const std::vector<Case>& cases) {
  int index = 0;
  for (const Case& c : cases) {
    const std::string message = refusal([&](Plan& p) { c.change(p, step_of(p, c.step)); });
    EXPECT_THAT(message, HasSubstr(std::string("\"") + c.step + "\"")) << "case " << index;
    ++index;
  }
}

template <class T>
void replace(Plan& plan, const std::string& name, Shape shape, std::vector<T> values) {
  plan.tensors.at(name).data = Tensor::of(std::move(shape), values);
}

TEST(PlanVerify, Multipliers) {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  std::vector<Case> cases;
  for (const float bad : {0.0f, -1.0f, nan, inf, 0x1p-101f, 0x1p101f}) {
    for (const auto& [step, tensor] : {std::pair{"quantize", "quantize.inv"},
                                       {"qkv", "qkv.m"},
                                       {"projection", "projection.s"},
                                       {"attention", "attention.m"},
                                       {"attention", "attention.mo"},
                                       {"echo", "echo.s"}}) {
      cases.push_back(
          {step, [=, name = std::string(tensor)](Plan& p, Step&) { set(p, name, 0, bad); }});
    }
  }
  for (const float bad : {nan, inf}) {
    for (const auto& [step, tensor] : {std::pair{"projection", "projection.b"},
                                       {"norm", "norm.g"},
                                       {"norm", "norm.beta"},
                                       {"log", "log.shift"},
                                       {"position", "position.const"},
                                       {"class", "class.const"},
                                       {"scale", "scale.const"},
                                       {"norm", "norm.eps"}}) {
      cases.push_back(
          {step, [=, name = std::string(tensor)](Plan& p, Step&) { set(p, name, 0, bad); }});
    }
  }
  expect_refusals(cases);
}

TEST(PlanVerify, ZeroGainIsFine) {
  EXPECT_EQ(refusal([](Plan& p) { set(p, "norm.g", 3, 0.0f); }), "");
}

TEST(PlanVerify, Thresholds) {
  expect_refusals({
      {"attention", [](Plan& p, Step&) { set(p, "attention.thr", 4, 2.0f); }},
      {"attention",
       [](Plan& p, Step&) {
         set(p, "attention.thr", 4, p.tensors.at("attention.thr").data.as<float>()[3]);
       }},
      {"attention", [](Plan& p, Step&) { set(p, "attention.thr", 14, 0.0f); }},
      {"attention", [](Plan& p, Step&) { set(p, "attention.thr", 0, std::nanf("")); }},
      {"attention", [](Plan& p, Step&) { set<uint8_t>(p, "attention.lut", 15, 1); }},
      {"attention", [](Plan& p, Step&) { replace<float>(p, "attention.thr", {0}, {}); }},
      {"attention",
       [](Plan& p, Step&) {
         replace<float>(p, "attention.thr", {2}, {0.5f, 0.25f});
       }},
      {"log", [](Plan& p, Step&) { set(p, "log.thr", 4, 20.0f); }},
      {"log", [](Plan& p, Step& s) { p.buffers[static_cast<size_t>(s.out[0])].bits = 3; }},
      {"levels", [](Plan& p, Step& s) { p.buffers[static_cast<size_t>(s.out[0])].bits = 4; }},
      {"levels",
       [](Plan& p, Step&) { replace<uint8_t>(p, "levels.lut", {16}, std::vector<uint8_t>(16)); }},
  });
}

TEST(PlanVerify, CodeRanges) {
  std::vector<Case> cases;
  for (const char* step : {"quantize", "qkv", "attention", "norm"}) {
    cases.push_back({step, [](Plan&, Step& s) { s.ints["hi"] = 256; }});
    cases.push_back({step, [](Plan&, Step& s) { s.ints["lo"] = -1; }});
    cases.push_back({step, [](Plan&, Step& s) { s.ints["lo"] = s.ints["hi"] + 1; }});
    cases.push_back({step, [](Plan&, Step& s) { s.ints["zero"] = int64_t{1} << 40; }});
    cases.push_back({step, [](Plan&, Step& s) { s.ints.erase("zero"); }});
    cases.push_back(
        {step, [](Plan& p, Step& s) { p.buffers[static_cast<size_t>(s.out[0])].bits = 3; }});
  }
  expect_refusals(cases);
}

TEST(PlanVerify, Operands) {
  expect_refusals({
      {"qkv",
       [](Plan& p, Step&) {
         p.tensors.at("qkv.w").logical_shape = {23, 8};
       }},
      {"qkv", [](Plan& p, Step&) { p.tensors.at("qkv.w").layout = "plain"; }},
      {"qkv", [](Plan& p, Step&) { p.tensors.at("qkv.c").layout = "canon8"; }},
      {"qkv", [](Plan&, Step& s) { s.tensors.erase("w"); }},
      {"qkv", [](Plan&, Step& s) { s.tensors["w"] = "fc1.w"; }},
      {"qkv", [](Plan&, Step& s) { s.tensors["q"] = "qkv.q"; }},
      {"qkv",
       [](Plan& p, Step& s) {
         p.tensors["qkv.q"] = p.tensors["qkv.c"];
         s.tensors["q"] = "qkv.q";
       }},
      {"qkv", [](Plan& p, Step&) { replace<int32_t>(p, "qkv.c", {23}, std::vector<int32_t>(23)); }},
      {"qkv", [](Plan& p, Step&) { replace<float>(p, "qkv.c", {24}, std::vector<float>(24)); }},
      {"qkv", [](Plan&, Step& s) { s.ints.erase("za"); }},
      {"qkv", [](Plan& p, Step& s) { s.in.push_back(p.inputs[0]); }},
      {"projection", [](Plan& p, Step& s) { s.in[1] = p.inputs[0]; }},
      {"attention", [](Plan&, Step& s) { s.ints["heads"] = 3; }},
      {"attention", [](Plan&, Step& s) { s.ints["heads"] = 0; }},
      {"attention", [](Plan&, Step& s) { s.in.pop_back(); }},
      {"attention", [](Plan&, Step& s) { s.strings["codes"] = "linear"; }},
      {"attention", [](Plan&, Step& s) { s.strings["pv"] = "plain"; }},
      {"attention",
       [](Plan& p, Step&) {
         replace<float>(p, "attention.m", {3}, {1.0f, 1.0f, 1.0f});
       }},
      {"norm", [](Plan& p, Step&) { set(p, "norm.eps", 0, 0.0f); }},
      {"norm", [](Plan&, Step& s) { s.tensors.erase("beta"); }},
      {"gelu", [](Plan&, Step& s) { s.strings["kind"] = "swash"; }},
      {"gelu",
       [](Plan& p, Step& s) {
         p.buffers[static_cast<size_t>(s.out[0])].item_shape = {16, 5};
       }},
      {"position",
       [](Plan& p, Step&) { replace<float>(p, "position.const", {5}, std::vector<float>(5)); }},
      {"scale", [](Plan& p, Step& s) { s.in.push_back(p.inputs[0]); }},
      {"class",
       [](Plan& p, Step&) {
         replace<float>(p, "class.const", {2, 8}, std::vector<float>(16));
       }},
      {"class",
       [](Plan& p, Step&) { replace<float>(p, "class.const", {8}, std::vector<float>(8)); }},
      {"slice0",
       [](Plan&, Step& s) {
         s.lists["range"] = {2, 0, 8, 1};
       }},
      {"slice0",
       [](Plan&, Step& s) {
         s.lists["range"] = {1, 20, 28, 1};
       }},
      {"slice0",
       [](Plan&, Step& s) {
         s.lists["range"] = {1, -8, 0, 1};
       }},
      {"slice0",
       [](Plan&, Step& s) {
         s.lists["range"] = {1, 0, 8, 0};
       }},
      {"slice0",
       [](Plan&, Step& s) {
         s.lists["range"] = {1, 0, 8};
       }},
      {"slice0", [](Plan& p, Step& s) { p.buffers[static_cast<size_t>(s.out[0])].bits = 7; }},
      {"transpose",
       [](Plan&, Step& s) {
         s.lists["perm"] = {1, 1};
       }},
      {"transpose",
       [](Plan&, Step& s) {
         s.lists["perm"] = {1, 2};
       }},
      {"transpose",
       [](Plan&, Step& s) {
         s.lists["dims"] = {8, 5};
       }},
      {"transpose",
       [](Plan&, Step& s) {
         s.lists["dims"] = {-8, -4};
       }},
      {"transpose", [](Plan&, Step& s) { s.lists.erase("dims"); }},
      {"pool", [](Plan& p, Step& s) { p.buffers[static_cast<size_t>(s.out[0])].item_shape = {5}; }},
  });
}

// A row whose sums could exceed int32 is refused even though every operand is in range.
TEST(PlanVerify, AccumulatorBounds) {
  expect_refusals({
      {"qkv",
       [](Plan& p, Step&) { set<int32_t>(p, "qkv.c", 5, std::numeric_limits<int32_t>::max()); }},
      {"qkv",
       [](Plan& p, Step&) { set<int32_t>(p, "qkv.c", 5, std::numeric_limits<int32_t>::min()); }},
      {"qkv",
       [](Plan& p, Step&) { set<int32_t>(p, "qkv.zw", 5, std::numeric_limits<int32_t>::min()); }},
      {"qkv",
       [](Plan& p, Step& s) {
         s.ints["za"] = 4'000'000;
         set<int32_t>(p, "qkv.zw", 5, 1000);
       }},
      {"attention",
       [](Plan&, Step& s) {
         s.ints["zq"] = 4'000'000;
         s.ints["zk"] = 4'000'000;
       }},
  });
  EXPECT_EQ(refusal([](Plan& p) { set<int32_t>(p, "qkv.c", 5, 1 << 30); }), "");
}

TEST(PlanVerify, OtherSoftmaxKinds) {
  const auto attention = [](const std::string& codes, const std::string& pv,
                            const std::function<void(Plan&, Step&)>& more) {
    return refusal([&](Plan& p) {
      Step& s = step_of(p, "attention");
      s.strings = {{"codes", codes}, {"pv", pv}};
      more(p, s);
    });
  };
  EXPECT_EQ(attention("log", "parity", [](Plan&, Step&) {}), "");
  EXPECT_EQ(attention("row", "row", [](Plan&, Step&) {}), "");
  EXPECT_NE(attention("row", "plain", [](Plan&, Step&) {}), "");
  EXPECT_NE(attention("uniform", "plain", [](Plan&, Step& s) { s.ints["phi"] = 15; }), "");
  EXPECT_NE(attention("log", "table2", [](Plan&, Step&) {}), "");
  const auto uniform = [](Plan& p, Step& s) {
    s.ints["phi"] = 15;
    s.tensors["pinv"] = "attention.pinv";
    p.tensors["attention.pinv"] = {
        "attention.pinv", Tensor::of<float>({1}, {15.0f}), "plain", 0, {}, "pinv"};
  };
  EXPECT_EQ(attention("uniform", "plain", uniform), "");
  EXPECT_EQ(attention("log", "table2",
                      [](Plan& p, Step&) {
                        replace<uint16_t>(p, "attention.lut", {16}, std::vector<uint16_t>(16, 0));
                      }),
            "");
}

}  // namespace
}  // namespace repquant
