#pragma once
// For tests and fuzzing: an artifact taken apart, changed in one place as a hostile writer would,
// and put together again with every checksum right. What opening accepts must run as the simulator
// says.
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "repquant/core/example_plan.h"
#include "repquant/core/files.h"
#include "repquant/core/plan_json.h"
#include "repquant/evaluate/verify.h"
#include "repquant/runtime/kernels/isa.h"
#include "repquant/runtime/testing.h"

namespace repquant::testing {

// Where a mutation takes its choices from: a seed, or the bytes of a fuzzer.
class Choices {
 public:
  virtual ~Choices() = default;
  virtual int64_t integer(int64_t low, int64_t high) = 0;
  size_t index(size_t count) {
    return static_cast<size_t>(integer(0, static_cast<int64_t>(count) - 1));
  }
};

class SeededChoices final : public Choices {
 public:
  explicit SeededChoices(uint64_t seed) : random_(seed) {}
  int64_t integer(int64_t low, int64_t high) override { return random_.integer(low, high); }

 private:
  Random random_;
};

class ByteChoices final : public Choices {
 public:
  explicit ByteChoices(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  int64_t integer(int64_t low, int64_t high) override {
    const auto range = static_cast<uint64_t>(high - low) + 1;
    uint64_t value = 0;
    for (uint64_t seen = 1; seen != 0 && (seen < range || range == 0) && !bytes_.empty();
         seen <<= 8) {
      value = value << 8 | bytes_.front();
      bytes_ = bytes_.subspan(1);
    }
    return low + static_cast<int64_t>(range == 0 ? value : value % range);
  }

 private:
  std::span<const uint8_t> bytes_;
};

struct Parts {
  nlohmann::json plan;
  std::string provenance;
  std::map<std::string, Tensor> tensors;

  explicit Parts(const Plan& whole)
      : plan(nlohmann::json::parse(plan_to_json(whole))), provenance(provenance_to_json(whole)) {
    for (const auto& [name, tensor] : whole.tensors) tensors[name] = tensor.data;
  }

  // Throws Error as reading the file would.
  Plan whole() {
    if (plan.contains("tensors") && plan["tensors"].is_object()) {
      for (auto& [name, entry] : plan["tensors"].items()) {
        const auto found = tensors.find(name);
        if (found == tensors.end() || !entry.is_object()) continue;
        const auto* data = static_cast<const std::byte*>(found->second.data());
        entry["crc32c"] = crc32c({data, found->second.bytes()});
      }
    }
    return plan_from_json(plan.dump(), provenance, tensors, "mutation");
  }
};

inline int64_t hostile_integer(Choices& choose) {
  constexpr int64_t kValues[] = {0,         1,         -1,        2,         3,         7,
                                 8,         15,        16,        127,       128,       255,
                                 256,       32767,     65536,     INT32_MAX, INT32_MIN, INT64_MAX,
                                 INT64_MIN, 1LL << 31, 1LL << 32, 1LL << 62, 100'000,   -100'000};
  if (choose.integer(0, 3) == 0) return choose.integer(-40, 300);
  return kValues[choose.index(std::size(kValues))];
}

inline float hostile_float(Choices& choose) {
  using Limits = std::numeric_limits<float>;
  constexpr float kValues[] = {0.0f,
                               -0.0f,
                               Limits::infinity(),
                               -Limits::infinity(),
                               1e-45f,
                               Limits::min(),
                               Limits::max(),
                               Limits::lowest(),
                               0x1p-100f,
                               0x1.fffp-101f,
                               0x1p100f,
                               0x1.0002p100f,
                               1.0f,
                               -1.0f,
                               0.5f,
                               1e9f};
  if (choose.integer(0, 7) == 0) return std::bit_cast<float>(0x7fc00001u);
  if (choose.integer(0, 7) == 0)
    return std::bit_cast<float>(static_cast<uint32_t>(choose.integer(0, UINT32_MAX)));
  return kValues[choose.index(std::size(kValues))];
}

// A place in the tree, walked to at random; never the root.
inline nlohmann::json& random_place(nlohmann::json& root, Choices& choose) {
  nlohmann::json* at = &root;
  while (at->is_structured() && !at->empty() && (at == &root || choose.integer(0, 7) != 0)) {
    auto next = at->begin();
    std::advance(next, static_cast<std::ptrdiff_t>(choose.index(at->size())));
    at = &*next;
  }
  return *at;
}

// Another number, another text of the same plan, something missing, twice, or in another order.
inline void mutate_tree(Parts& parts, Choices& choose) {
  const char* const sections[] = {"steps",  "steps",   "steps",  "buffers",
                                  "inputs", "outputs", "tensors"};
  nlohmann::json& section = parts.plan[sections[choose.index(std::size(sections))]];
  nlohmann::json& place = random_place(section, choose);
  if (place.is_number()) {
    place = choose.integer(0, 1) == 0 ? hostile_integer(choose)
                                      : place.get<int64_t>() + choose.integer(-2, 2);
  } else if (place.is_string()) {
    const nlohmann::json& other = random_place(section, choose);
    place = other.is_string() ? other : nlohmann::json("none");
  } else if (place.is_array() && !place.empty()) {
    const size_t a = choose.index(place.size()), b = choose.index(place.size());
    const int64_t kind = choose.integer(0, 3);
    if (kind == 0) place.erase(a);
    else if (kind == 1) place.push_back(nlohmann::json(place[a]));
    else if (kind == 2) std::swap(place[a], place[b]);
    else place[a] = nlohmann::json(place[b]);
  } else if (place.is_object() && !place.empty()) {
    place.erase(std::next(place.begin(), static_cast<std::ptrdiff_t>(choose.index(place.size()))));
  } else {
    place = nullptr;
  }
}

inline void mutate_values(Tensor& tensor, Choices& choose) {
  if (tensor.size() == 0) return;
  const auto at = choose.index(static_cast<size_t>(tensor.size()));
  if (tensor.dtype() == DType::kF32) {
    const float value = hostile_float(choose);
    auto* data = static_cast<float*>(tensor.data());
    if (choose.integer(0, 3) == 0) std::fill_n(data, tensor.size(), value);
    data[at] = value;
  } else if (tensor.dtype() == DType::kI32) {
    static_cast<int32_t*>(tensor.data())[at] = static_cast<int32_t>(hostile_integer(choose));
  } else {
    auto* bytes = static_cast<uint8_t*>(tensor.data());
    bytes[choose.index(tensor.bytes())] = static_cast<uint8_t>(choose.integer(0, 255));
  }
}

// Another shape or type than the plan says, or another length.
inline void mutate_form(Tensor& tensor, Choices& choose) {
  Shape shape = tensor.shape();
  const int64_t kind = choose.integer(0, 3);
  DType dtype = tensor.dtype();
  if (kind == 0) shape.push_back(1);
  if (kind == 1) shape.assign(1, tensor.size());
  if (kind == 2 && !shape.empty()) shape[choose.index(shape.size())] += choose.integer(-1, 1);
  if (kind == 3) dtype = choose.integer(0, 1) == 0 ? DType::kI32 : DType::kU8;
  for (int64_t& d : shape) d = std::max<int64_t>(d, 0);
  Tensor other(dtype, shape);
  const size_t bytes = std::min(other.bytes(), tensor.bytes());
  if (bytes > 0) std::memcpy(other.data(), tensor.data(), bytes);
  tensor = std::move(other);
}

inline void mutate(Parts& parts, Choices& choose) {
  const int64_t kind = choose.integer(0, 9);
  if (kind < 5 || parts.tensors.empty()) return mutate_tree(parts, choose);
  auto found = parts.tensors.begin();
  std::advance(found, static_cast<std::ptrdiff_t>(choose.index(parts.tensors.size())));
  if (kind < 9) mutate_values(found->second, choose);
  else mutate_form(found->second, choose);
}

// A small network of windows: a convolution by patches, a depthwise one, one that reads its
// windows in place and adds to a residual, padding, clamps, a mean.
inline Plan make_windows(uint64_t seed) {
  PlanBuilder b(seed);
  const int x = b.input("image", {6, 5, 3});
  const int codes = b.quantize(x, 8);
  const int patches = b.step("patches", {codes}, DType::kU8, {6, 5, 27}, 8);
  b.windows({3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1});
  b.last().ints["fill"] = b.zero_of(codes);
  b.zeros[patches] = b.zero_of(codes);
  const int first = b.linear(patches, {8, 4, 8});
  const int padded = b.step("pad", {first}, DType::kU8, {7, 6, 8}, 8);
  b.last().lists = {{"before", {0, 1, 0}}, {"after", {1, 0, 0}}};
  b.last().ints["fill"] = b.zero_of(first);
  b.zeros[padded] = b.zero_of(first);
  const int deep = b.step("depthwise", {padded}, DType::kF32, {3, 2, 8}, 32);
  b.windows({3, 3}, {2, 2}, {0, 0, 0, 0}, {1, 1});
  b.weights(8, 9, 8);
  b.last().ints["za"] = b.zero_of(padded);
  b.tensor("c", Tensor::of<int32_t>({8}, std::vector<int32_t>(8, 100)));
  b.reals("s", 8, 1e-4f, 4e-4f);
  b.reals("b", 8, -1.0f, 1.0f);
  const int again = b.quantize(deep, 8);
  const int joined = b.step("conv", {again, deep}, DType::kF32, {3, 2, 8}, 32);
  b.windows({3, 2}, {1, 1}, {1, 0, 1, 1}, {1, 1});
  b.weights(8, 48, 4);
  b.last().ints["za"] = b.zero_of(again);
  b.tensor("c", Tensor::of<int32_t>({8}, std::vector<int32_t>(8, -70)));
  b.reals("s", 8, 1e-4f, 4e-4f);
  b.reals("b", 8, -1.0f, 1.0f);
  const int mean = b.step("mean_rows", {joined}, DType::kF32, {8}, 32);
  return b.finish(b.linear(b.quantize(mean, 4), {5, 3, 0}));
}

// Float steps, joins and an integer input.
inline Plan make_floats(uint64_t seed) {
  PlanBuilder b(seed);
  const int ids = b.input("ids", {6});
  b.plan.buffers[static_cast<size_t>(ids)].dtype = DType::kI64;
  b.plan.buffers[static_cast<size_t>(ids)].bits = 64;
  const int x = b.input("x", {6, 5});
  const int rows = b.step("gather_rows", {ids}, DType::kF32, {6, 5}, 32);
  b.tensor("table", Tensor::of<float>({7, 5}, b.random.reals(35, -2, 2)));
  const int place = b.step("cast", {ids}, DType::kF32, {6}, 32);
  const int column = b.step("transpose", {place}, DType::kF32, {6, 1}, 32);
  b.last().lists = {{"dims", {6, 1}}, {"perm", {0, 1}}};
  const int moved = b.step("binary", {rows, column}, DType::kF32, {6, 5}, 32);
  b.last().strings["kind"] = "sub";
  const int soft = b.step("softmax", {moved}, DType::kF32, {6, 5}, 32);
  const int product = b.step("matmul", {soft}, DType::kF32, {6, 4}, 32);
  b.tensor("weight", Tensor::of<float>({5, 4}, b.random.reals(20, -1, 1)));
  b.reals("b", 4, -1, 1);
  const int joined = b.step("concat", {product, x}, DType::kF32, {6, 9}, 32);
  b.last().ints["axis"] = 1;
  const int clipped = b.activation(joined, "clip");
  b.tensor("p", Tensor::of<float>({2}, {-1.5f, 1.5f}));
  const int picked = b.step("copy_rows", {clipped}, DType::kF32, {4, 9}, 32);
  b.last().ints["width"] = 9;
  b.tensor("index", Tensor::of<int32_t>({4}, std::vector<int32_t>{5, 0, 2, 2}));
  const int unit = b.step("l2_norm", {picked}, DType::kF32, {4, 9}, 32);
  b.last().ints["width"] = 9;
  b.real("eps", 1e-12f);
  const int total = b.step("reduce", {unit}, DType::kF32, {9}, 32);
  b.last().strings["kind"] = "mean";
  b.last().lists["axes"] = {0, 0};
  return b.finish(b.linear(b.quantize(total, 8), {3, 4, 0}));
}

// Attention over windows with bias and mask.
inline Plan make_masked(uint64_t seed) {
  PlanBuilder b(seed);
  const int x = b.input("x", {3, 4, 8});
  const int q = b.quantize(x, 4);
  const int y = b.attention(q, q, q, {2, "row", "row", 255, 0, false, 0});
  b.tensor("bias", Tensor::of<float>({3, 2, 4, 4}, b.random.reals(96, -1, 1)));
  std::vector<uint8_t> mask(16, 1);
  mask[3] = mask[6] = 0;
  b.tensor("mask", Tensor::of<uint8_t>({1, 4, 4}, mask));
  return b.finish(y);
}

inline std::vector<Plan> plans_to_mutate() {
  std::vector<Plan> plans{example_plan(), make_vit({8, 4, 16, 2, 24, 5, 1, 4, false}, 600),
                          make_windows(601), make_floats(603), make_masked(604)};
  PlanBuilder b(602);
  const int x = b.input("x", {6, 8});
  const int q = b.quantize(x, 4), v = b.quantize(x, 6);
  const int parity = b.attention(q, q, v, {2, "log", "parity", 15, 2.0, true, 0});
  const int wide = b.attention(q, q, v, {1, "log", "table2", 31, 2.0, false, 5});
  const int row = b.attention(q, v, wide, {2, "row", "row", 255, 0, true, 0});
  const int plain = b.attention(q, v, v, {2, "uniform", "plain", 15, 0, false, 0});
  const int sum = b.step("add", {parity, row}, DType::kF32, {6, 8}, 32);
  plans.push_back(b.finish(b.step("add", {sum, plain}, DType::kF32, {6, 8}, 32)));
  return plans;
}

// Ordinary values with a few that the laws treat apart.
inline std::vector<Tensor> inputs_for(const Plan& plan, uint64_t seed) {
  using Limits = std::numeric_limits<float>;
  constexpr float kApart[] = {
      -0.0f, 1e-40f, Limits::infinity(), -Limits::infinity(), 3e38f, Limits::quiet_NaN()};
  Random random(seed);
  std::vector<Tensor> inputs;
  for (const int index : plan.inputs) {
    const Buffer& buffer = plan.buffers[static_cast<size_t>(index)];
    std::vector<float> values = random.reals(element_count(buffer.item_shape), -3, 3);
    if (seed % 4 == 0) values[seed / 4 % values.size()] = kApart[seed / 4 % std::size(kApart)];
    Shape shape{1};
    shape.insert(shape.end(), buffer.item_shape.begin(), buffer.item_shape.end());
    inputs.emplace_back(buffer.dtype, shape);
    const size_t width = size_of(buffer.dtype);
    for (size_t i = 0; i < values.size(); ++i) {
      const int64_t integer = random.integer(-9, 9);
      const void* from = buffer.dtype == DType::kF32 ? static_cast<const void*>(&values[i])
                                                     : static_cast<const void*>(&integer);
      std::memcpy(static_cast<std::byte*>(inputs.back().data()) + i * width, from, width);
    }
  }
  return inputs;
}

enum class Outcome { kRefused, kExact, kDiffers };

// Opens for every instruction set and runs beside the simulator. `detail` says what differs. Throws
// what is no refusal: a refusal is an Error that is not kInternal.
inline Outcome open_and_compare(Parts& parts, uint64_t seed, std::string& detail) {
  constexpr uint64_t kCap = uint64_t{64} << 20;
  try {
    const Plan plan = parts.whole();
    for (const runtime::IsaSupport& support : runtime::isa_support()) {
      if (!support.available) continue;
      const std::string isa(runtime::isa_name(support.isa));
      const auto program = Program::from_plan(plan, {.isa = isa, .memory_cap = kCap});
      const auto found = first_difference(plan, program, inputs_for(plan, seed), nullptr);
      if (!found) continue;
      detail = isa + ": step \"" + found->step + "\" (" + found->op + "), element " +
               std::to_string(found->element) + ": simulated " + std::to_string(found->simulated) +
               ", executed " + std::to_string(found->executed);
      return Outcome::kDiffers;
    }
    return Outcome::kExact;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInternal) throw;
    return Outcome::kRefused;
  }
}

}  // namespace repquant::testing
