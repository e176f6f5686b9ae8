// Every kind of step: each of its fields altered, and values that arithmetic treats apart, on every
// instruction set of this machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "repquant/core/plan_verifier.h"
#include "repquant/evaluate/testing_mutations.h"
#include "repquant/runtime/testing_kinds.h"

namespace repquant {
namespace {

using testing::KindPlan;
using Limits = std::numeric_limits<float>;

constexpr float kApart[] = {0.0f,
                            -0.0f,
                            Limits::denorm_min(),
                            -Limits::denorm_min(),
                            1e-39f,
                            -1e-40f,
                            Limits::min(),
                            Limits::infinity(),
                            -Limits::infinity(),
                            Limits::max(),
                            Limits::lowest(),
                            Limits::quiet_NaN(),
                            -Limits::quiet_NaN()};

const std::vector<KindPlan>& kinds() {
  static const std::vector<KindPlan> all = testing::every_kind();
  return all;
}

// ---- values -------------------------------------------------------------------------------------
Tensor input_for(const Buffer& buffer, const std::function<float()>& real,
                 testing::Random& random) {
  Shape shape{1};
  shape.insert(shape.end(), buffer.item_shape.begin(), buffer.item_shape.end());
  Tensor input(buffer.dtype, shape);
  constexpr int64_t kIntegers[] = {0, -1, 1, 6, 7, -7, -8, INT32_MAX, INT32_MIN, 1 << 24, 16777217};
  constexpr int64_t kWide[] = {INT64_MAX, INT64_MIN, (1LL << 53) + 1, -(1LL << 40) - 1};
  for (int64_t i = 0; i < input.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    const int64_t integer = kIntegers[random.integer(0, std::size(kIntegers) - 1)];
    if (buffer.dtype == DType::kF32) input.as<float>()[at] = real();
    else if (buffer.dtype == DType::kI32) input.as<int32_t>()[at] = static_cast<int32_t>(integer);
    else
      input.as<int64_t>()[at] = random.integer(0, 2) == 0 ? kWide[random.integer(0, 3)] : integer;
  }
  return input;
}

// Each value everywhere; one of them among ordinary numbers; all of them in disorder; few of them.
std::vector<std::function<float()>> patterns(testing::Random& random) {
  std::vector<std::function<float()>> all;
  for (const float value : kApart) {
    all.emplace_back([=] { return value; });
    all.emplace_back(
        [=, &random] { return random.integer(0, 15) == 0 ? value : random.real(-3, 3); });
  }
  const auto any = [&random] { return kApart[random.integer(0, std::size(kApart) - 1)]; };
  all.emplace_back(any);
  all.emplace_back([=, &random] { return random.integer(0, 2) == 0 ? any() : random.real(-3, 3); });
  all.emplace_back([&random] {  // any bits
    return std::bit_cast<float>(static_cast<uint32_t>(random.next()));
  });
  all.emplace_back([&random] {  // denormals
    return std::bit_cast<float>(static_cast<uint32_t>(random.next()) & 0x807fffffu);
  });
  return all;
}

// Empty: the runtime follows the simulator on every instruction set.
std::string difference(const Plan& plan, const std::vector<Tensor>& inputs) {
  for (const std::string& isa : runtime::available_isas()) {
    const auto program = Program::from_plan(plan, {.isa = isa, .memory_cap = uint64_t{64} << 20});
    const auto found = first_difference(plan, program, inputs, nullptr);
    if (!found) continue;
    return fmt::format("{}: step \"{}\" ({}), element {}: simulated {}, executed {}", isa,
                       found->step, found->op, found->element, found->simulated, found->executed);
  }
  return "";
}

TEST(StepKinds, AllOpsAreThere) {
  std::set<std::string> ops;
  for (const KindPlan& kind : kinds()) ops.insert(kind.plan.steps[kind.step].op);
  for (const auto& [op, check] : plan_checks::Verifier::checks())
    EXPECT_TRUE(ops.contains(op)) << op;
}

TEST(StepKinds, ValuesApartFollowTheLaw) {
  testing::Random random(77);
  const auto all = patterns(random);
  for (const KindPlan& kind : kinds()) {
    for (size_t p = 0; p < all.size(); ++p) {
      std::vector<Tensor> inputs;
      for (const int input : kind.plan.inputs)
        inputs.push_back(input_for(kind.plan.buffers[static_cast<size_t>(input)], all[p], random));
      EXPECT_EQ(difference(kind.plan, inputs), "") << kind.name << ", pattern " << p;
    }
  }
}

// ---- fields -------------------------------------------------------------------------------------
constexpr int64_t kIntegers[] = {0,         1,         -1,        2,         3,         7,
                                 15,        16,        127,       128,       255,       256,
                                 32'000,    32'001,    -32'000,   -32'001,   4'193'792, 4'193'793,
                                 INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, -100'000,  1LL << 32};
constexpr int64_t kSizes[] = {0,         1,         -1,        3,         64,
                              INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 1LL << 32};
constexpr float kReals[] = {0.0f,
                            -0.0f,
                            Limits::infinity(),
                            -Limits::infinity(),
                            Limits::max(),
                            Limits::lowest(),
                            Limits::quiet_NaN(),
                            Limits::denorm_min(),
                            Limits::min(),
                            0x1p-100f,
                            0x1.fffp-101f,
                            0x1p100f,
                            0x1.0002p100f,
                            -1.0f};

using Visit = std::function<void(const std::string&, const Plan&)>;

// One change a visit.
class Alterations {
 public:
  Alterations(const KindPlan& kind, Visit visit)
      : original_(kind.plan), at_(kind.step), visit_(std::move(visit)) {}

  void run() {
    ends();
    attributes();
    for (const auto& [role, name] : step().tensors) tensor(role, name);
    foreign_tensors();
    for (const int index : step().in) buffer(index);
    buffer(step().out[0]);
  }

 private:
  const Step& step() const { return original_.steps[at_]; }
  void change(const std::string& what, const std::function<void(Plan&, Step&)>& alter) {
    Plan plan = original_;
    alter(plan, plan.steps[at_]);
    visit_(what, plan);
  }

  void ends() {
    for (const auto& [op, check] : plan_checks::Verifier::checks())
      change("op " + op, [&](Plan&, Step& s) { s.op = op; });
    for (const char* name : {"", "other"}) change("name", [&](Plan&, Step& s) { s.name = name; });
    const int count = static_cast<int>(original_.buffers.size());
    for (int to = -1; to <= count; ++to) {
      for (size_t i = 0; i < step().in.size(); ++i)
        change("input", [&](Plan&, Step& s) { s.in[i] = to; });
      change("more inputs", [&](Plan&, Step& s) { s.in.push_back(to); });
      change("output", [&](Plan&, Step& s) { s.out[0] = to; });
      change("more outputs", [&](Plan&, Step& s) { s.out.push_back(to); });
    }
    change("fewer inputs", [](Plan&, Step& s) { s.in.pop_back(); });
    change("no output", [](Plan&, Step& s) { s.out.clear(); });
  }

  void attributes() {
    for (const auto& [key, value] : step().ints) {
      change("no " + key, [&](Plan&, Step& s) { s.ints.erase(key); });
      for (const int64_t to : kIntegers)
        change(fmt::format("{} {}", key, to), [&](Plan&, Step& s) { s.ints[key] = to; });
    }
    std::vector<std::string> texts = {"",      "none",   "log",    "uniform", "row",
                                      "table", "table2", "parity", "plain"};
    for (const FunctionLaw& law : kFunctionLaws) texts.emplace_back(law.name);
    for (const std::string_view name : kBinaryNames) texts.emplace_back(name);
    for (const std::string_view name : kReduceNames) texts.emplace_back(name);
    for (const auto& [key, value] : step().strings) {
      change("no " + key, [&](Plan&, Step& s) { s.strings.erase(key); });
      for (const std::string& to : texts)
        change(key + " " + to, [&](Plan&, Step& s) { s.strings[key] = to; });
    }
    for (const auto& [key, values] : step().lists) {
      change("no " + key, [&](Plan&, Step& s) { s.lists.erase(key); });
      change("shorter " + key, [&](Plan&, Step& s) { s.lists[key].pop_back(); });
      change("longer " + key, [&](Plan&, Step& s) { s.lists[key].push_back(1); });
      change("reversed " + key, [&](Plan&, Step& s) { std::ranges::reverse(s.lists[key]); });
      for (size_t i = 0; i < values.size(); ++i) {
        for (const int64_t to : kIntegers)
          change(fmt::format("{}[{}] {}", key, i, to),
                 [&](Plan&, Step& s) { s.lists[key][i] = to; });
      }
    }
  }

  void tensor(const std::string& role, const std::string& name) {
    const auto entry = [&](const std::string& what, const std::function<void(PlanTensor&)>& alter) {
      change(role + " " + what, [&](Plan& p, Step&) { alter(p.tensors.at(name)); });
    };
    change("no " + role, [&](Plan&, Step& s) { s.tensors.erase(role); });
    change("no tensor " + name, [&](Plan& p, Step&) { p.tensors.erase(name); });
    entry("of another role", [](PlanTensor& t) { t.role = "q"; });
    for (const char* layout : {"plain", "canon8", "canon4", "canon3", "canon2", "packed"})
      entry(layout, [&](PlanTensor& t) { t.layout = layout; });
    for (const int bits : {-1, 0, 1, 2, 3, 4, 5, 8, 9, 64})
      entry(fmt::format("of {} bits", bits), [&](PlanTensor& t) { t.bits = bits; });
    const Shape logical = original_.tensors.at(name).logical_shape;
    for (size_t axis = 0; axis <= logical.size(); ++axis) {
      for (const int64_t to : kSizes) {
        entry("logical shape", [&](PlanTensor& t) {
          if (axis < logical.size()) t.logical_shape[axis] = to;
          else t.logical_shape.push_back(to);
        });
      }
    }
    values(role, name);
  }

  // Another type, shape or content of the same bytes.
  void values(const std::string& role, const std::string& name) {
    const Tensor& data = original_.tensors.at(name).data;
    const auto content = [&](const std::string& what, const std::function<void(Tensor&)>& alter) {
      change(role + " " + what, [&](Plan& p, Step&) { alter(p.tensors.at(name).data); });
    };
    for (const DType type : {DType::kF32, DType::kU8, DType::kI32, DType::kI64, DType::kU16})
      content("of another type", [&](Tensor& t) { t = Tensor(type, t.shape()); });
    Shape longer = data.shape(), shorter = longer, deeper = longer;
    longer[0] += 1, shorter[0] -= 1;
    deeper.insert(deeper.begin(), 1);
    for (const Shape& shape : {longer, shorter, deeper, Shape{}, Shape{data.size()}})
      content("of shape " + to_string(shape), [&](Tensor& t) { t = Tensor(t.dtype(), shape); });
    const auto everywhere = [&](const std::string& what, auto value) {
      using T = decltype(value);
      content(what + " at the end", [=](Tensor& t) { t.as<T>().back() = value; });
      content(what + " everywhere", [=](Tensor& t) { std::ranges::fill(t.as<T>(), value); });
    };
    if (data.dtype() == DType::kF32) {
      for (const float to : kReals) everywhere(fmt::format("{}", to), to);
    } else if (data.dtype() == DType::kI32) {
      for (const int64_t to : kIntegers) everywhere(std::to_string(to), static_cast<int32_t>(to));
    } else if (data.dtype() == DType::kU8) {
      for (const int to : {0, 1, 15, 127, 128, 255})
        everywhere(std::to_string(to), static_cast<uint8_t>(to));
    } else {
      for (const int to : {0, 1, 32768, 65535})
        everywhere(std::to_string(to), static_cast<uint16_t>(to));
    }
  }

  // A tensor that other steps have.
  void foreign_tensors() {
    for (const char* role : {"w", "c", "zw", "m", "s", "b", "lut", "bias", "mask", "beta", "p",
                             "const", "index", "q"}) {
      if (step().tensors.contains(role)) continue;
      for (const Tensor& data : {Tensor::of<float>({1}, {1.0f}), Tensor(DType::kU8, {256})}) {
        change(std::string("with ") + role, [&](Plan& p, Step& s) {
          const std::string name = s.name + "." + role;
          s.tensors[role] = name;
          p.tensors[name] = {name, data, "plain", 0, {}, role};
        });
      }
    }
  }

  void buffer(int index) {
    const auto entry = [&](const std::string& what, const std::function<void(Buffer&)>& alter) {
      change("buffer " + what,
             [&](Plan& p, Step&) { alter(p.buffers[static_cast<size_t>(index)]); });
    };
    for (const DType type : {DType::kF32, DType::kU8, DType::kI32, DType::kI64, DType::kU16}) {
      for (const int bits : {-1, 0, 1, 2, 4, 5, 8, 9, 16, 32, 64})
        entry("type", [&](Buffer& b) { b.dtype = type, b.bits = bits; });
    }
    const Shape shape = original_.buffers[static_cast<size_t>(index)].item_shape;
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      for (const int64_t to : kSizes) entry("size", [&](Buffer& b) { b.item_shape[axis] = to; });
    }
    entry("deeper", [](Buffer& b) { b.item_shape.insert(b.item_shape.begin(), 1); });
    entry("flat", [](Buffer& b) { b.item_shape = {element_count(b.item_shape)}; });
    entry("reversed", [](Buffer& b) { std::ranges::reverse(b.item_shape); });
  }

  const Plan& original_;
  size_t at_;
  Visit visit_;
};

// What opening accepts runs as the simulator says.
TEST(StepKinds, EveryFieldAlteredIsRefusedOrExact) {
  int refused = 0, exact = 0;
  for (const KindPlan& kind : kinds()) {
    uint64_t seed = 1;
    Alterations(kind, [&](const std::string& what, const Plan& plan) {
      try {
        verify_plan(plan);
        const std::string found = difference(plan, testing::inputs_for(plan, ++seed));
        EXPECT_EQ(found, "") << kind.name << ": " << what;
        ++exact;
      } catch (const Error& error) {
        EXPECT_NE(error.code(), ErrorCode::kInternal)
            << kind.name << ": " << what << ": " << error.what();
        ++refused;
      }
    }).run();
  }
  std::printf("%zu plans: %d changes refused, %d exact\n", kinds().size(), refused, exact);
  EXPECT_GT(refused, 10'000);
  EXPECT_GT(exact, 1'000);
}

}  // namespace
}  // namespace repquant
