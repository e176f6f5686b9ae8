#include "repquant/runtime/steps/steps.h"

#include <fmt/format.h>

#include "repquant/core/fields.h"
#include "repquant/core/format/uniform.h"

namespace repquant::runtime {
namespace {

struct Op {
  const char* name;
  MakeStepKernel make;
};

constexpr Op kOps[] = {
    {"quantize", make_quantize},   {"quantize_log", make_quantize_log},
    {"table", make_table},         {"dequantize", make_dequantize},
    {"linear", make_linear},       {"patches", make_patches},
    {"conv", make_conv},
    {"depthwise", make_depthwise}, {"pad", make_pad},
    {"softmax", make_row_step},    {"l2_norm", make_row_step},
    {"matmul", make_matmul},       {"copy_rows", make_copy_rows},
    {"attention", make_attention}, {"layer_norm", make_norm},
    {"rms_norm", make_norm},       {"activation", make_activation},
    {"add", make_binary},          {"mul", make_binary},
    {"prepend", make_prepend},     {"slice", make_slice},
    {"transpose", make_transpose}, {"mean_rows", make_mean_rows},
    {"binary", make_broadcast},    {"reduce", make_reduce},
    {"concat", make_concat},       {"gather_rows", make_gather_rows},
    {"cast", make_cast},           {"max_pool", make_pool},
    {"average_pool", make_pool},
};

template <class T>
const T* elements(const Plan& plan, const Step& step, const std::string& role, int64_t count,
                  bool or_one) {
  const Tensor& tensor = plan.tensor(step, role);
  expect(tensor.dtype() == DTypeOf<T>::value, step,
         fmt::format("tensor \"{}\" of {}", role, name_of(DTypeOf<T>::value)),
         std::string(name_of(tensor.dtype())));
  expect(tensor.size() == count || (or_one && tensor.size() == 1), step,
         fmt::format("tensor \"{}\" of {} elements", role, count), std::to_string(tensor.size()));
  return tensor.as<T>().data();
}

}  // namespace

void bad_step(const Step& step, const std::string& expected, const std::string& got) {
  throw Error(ErrorCode::kCorruptFile, fmt::format("runtime: step \"{}\" ({}): expected {}, got {}",
                                                   step.name, step.op, expected, got));
}

void unsupported_step(const Step& step, const std::string& what, const std::string& supported) {
  throw Error(ErrorCode::kUnsupported, fmt::format("runtime: step \"{}\" ({}): expected {}, got {}",
                                                   step.name, step.op, supported, what));
}

void expect(bool holds, const Step& step, const std::string& expected, const std::string& got) {
  if (!holds) bad_step(step, expected, got);
}

const Buffer& input_buffer(const Plan& plan, const Step& step, size_t index) {
  expect(index < step.in.size(), step, fmt::format("at least {} inputs", index + 1),
         std::to_string(step.in.size()));
  return plan.buffers.at(static_cast<size_t>(step.in[index]));
}

const Buffer& output_buffer(const Plan& plan, const Step& step) {
  expect(step.out.size() == 1, step, "one output", std::to_string(step.out.size()));
  return plan.buffers.at(static_cast<size_t>(step.out[0]));
}

int64_t items_of(const Buffer& buffer) { return element_count(buffer.item_shape); }
int64_t channels_of(const Buffer& buffer) {
  return buffer.item_shape.empty() ? 1 : buffer.item_shape.back();
}
int64_t rows_of(const Buffer& buffer) {
  const int64_t channels = channels_of(buffer);
  return channels == 0 ? 0 : items_of(buffer) / channels;
}

const float* floats(const Plan& plan, const Step& step, const std::string& role, int64_t count,
                    bool or_one) {
  return elements<float>(plan, step, role, count, or_one);
}
const int32_t* integers(const Plan& plan, const Step& step, const std::string& role,
                        int64_t count) {
  return elements<int32_t>(plan, step, role, count, false);
}
float scalar(const Plan& plan, const Step& step, const std::string& role) {
  return *floats(plan, step, role, 1);
}

std::string text(const Step& step, const std::string& key) {
  const auto found = step.strings.find(key);
  expect(found != step.strings.end(), step, fmt::format("a string \"{}\"", key), "none");
  return found->second;
}

CodeBounds code_bounds(const Plan& plan, const Step& step) {
  const int64_t zero = plan.integer(step, "zero"), lo = plan.integer(step, "lo"),
                hi = plan.integer(step, "hi");
  expect(0 <= lo && lo <= hi && hi <= 255, step, "codes 0 <= lo <= hi <= 255",
         fmt::format("lo {}, hi {}", lo, hi));
  expect(-kMaxZeroPoint <= zero && zero <= kMaxZeroPoint, step,
         fmt::format("a zero point within {}", kMaxZeroPoint), std::to_string(zero));
  return {static_cast<int32_t>(zero), static_cast<int32_t>(lo), static_cast<int32_t>(hi)};
}

const uint8_t* code_table(const Plan& plan, const Step& step) {
  const Tensor& lut = plan.tensor(step, "lut");
  expect(lut.dtype() == DType::kU8 && lut.size() == 256, step, "tensor \"lut\" of 256 U8",
         fmt::format("{} of {}", lut.size(), name_of(lut.dtype())));
  return lut.as<uint8_t>().data();
}

std::unique_ptr<StepKernel> make_step_kernel(const Plan& plan, const Step& step, Isa isa) {
  std::vector<std::string> names;
  for (const Op& op : kOps) {
    if (step.op == op.name) return op.make(plan, step, isa);
    names.emplace_back(op.name);
  }
  const std::vector<std::string> near = nearest(step.op, names);
  throw Error(ErrorCode::kUnsupported,
              fmt::format("runtime: step \"{}\": expected an op of this runtime, got \"{}\"",
                          step.name, step.op),
              fmt::format("supported: {}{}", fmt::join(names, ", "),
                          near.empty() ? "" : "; nearest: " + near.front()));
}

}  // namespace repquant::runtime
