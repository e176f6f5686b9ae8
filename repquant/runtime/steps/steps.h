#pragma once
// The makers behind make_step_kernel, one an op, and what they share for reading operands.
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "repquant/runtime/kernels/activation/activation.h"
#include "repquant/runtime/step_kernel.h"

namespace repquant::runtime {

using MakeStepKernel = std::unique_ptr<StepKernel> (*)(const Plan&, const Step&, Isa);

std::unique_ptr<StepKernel> make_quantize(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_quantize_log(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_table(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_dequantize(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_linear(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_attention(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_norm(const Plan&, const Step&, Isa);      // layer_norm, rms_norm
std::unique_ptr<StepKernel> make_row_step(const Plan&, const Step&, Isa);  // softmax, l2_norm
std::unique_ptr<StepKernel> make_matmul(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_copy_rows(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_mean_rows(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_activation(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_binary(const Plan&, const Step&, Isa);  // add, mul
std::unique_ptr<StepKernel> make_broadcast(const Plan&, const Step&, Isa);  // binary
std::unique_ptr<StepKernel> make_pool(const Plan&, const Step&, Isa);  // max_pool, average_pool
std::unique_ptr<StepKernel> make_reduce(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_gather_rows(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_cast(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_concat(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_prepend(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_slice(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_transpose(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_pad(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_patches(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_conv(const Plan&, const Step&, Isa);
std::unique_ptr<StepKernel> make_depthwise(const Plan&, const Step&, Isa);

// ---- reading operands; every failure is a kCorruptFile that names the step ----------------------
[[noreturn]] void bad_step(const Step& step, const std::string& expected, const std::string& got);
// A form that is valid but has no kernel: kUnsupported.
[[noreturn]] void unsupported_step(const Step& step, const std::string& what,
                                   const std::string& supported);
void expect(bool holds, const Step& step, const std::string& expected, const std::string& got);

const Buffer& input_buffer(const Plan& plan, const Step& step, size_t index);
const Buffer& output_buffer(const Plan& plan, const Step& step);
int64_t items_of(const Buffer& buffer);     // elements of one item
int64_t channels_of(const Buffer& buffer);  // last item dimension, 1 for a scalar item
int64_t rows_of(const Buffer& buffer);      // items_of / channels_of

// The tensor's elements; its size must be `count` (or 1 where `or_one`).
const float* floats(const Plan& plan, const Step& step, const std::string& role, int64_t count,
                    bool or_one = false);
const int32_t* integers(const Plan& plan, const Step& step, const std::string& role, int64_t count);
float scalar(const Plan& plan, const Step& step, const std::string& role);
std::string text(const Step& step, const std::string& key);

// The function a step names in "kind", with its parameters "p".
ActivationArgs activation_args(const Plan& plan, const Step& step);

// zero, lo, hi of a codes output: 0 <= lo <= hi <= 255, zero within the range of the float law.
struct CodeBounds {
  int32_t zero = 0, lo = 0, hi = 255;
};
CodeBounds code_bounds(const Plan& plan, const Step& step);
const uint8_t* code_table(const Plan& plan, const Step& step);  // the 256 entries of "lut"

// 64-byte aligned bytes, zeroed.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    data_.reset(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{64})));
    std::memset(data_.get(), 0, bytes);
  }
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  size_t size() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t bytes_ = 0;
};

}  // namespace repquant::runtime
