#pragma once
// The checks behind verify_plan, one a step op. Internal to plan_verify*.cpp.
#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "repquant/core/plan.h"
#include "repquant/core/plan_window.h"

namespace repquant::plan_checks {

inline constexpr int64_t kMaxElements = int64_t{1} << 31;  // of all buffers of one item together
inline constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
inline constexpr size_t kMaxSteps = 1'000'000;

class Verifier {
 public:
  explicit Verifier(const Plan& plan) : plan_(plan), written_(plan.buffers.size(), false) {}
  void run();

  using Check = void (Verifier::*)();
  static const std::map<std::string, Check>& checks();  // by op: all there are

 private:

  [[noreturn]] void fail(const std::string& expected, const std::string& got) const;
  void require(bool condition, const std::string& expected, const std::string& got) const {
    if (!condition) fail(expected, got);
  }

  void buffers();
  void ends();
  void step_ends();
  void step_tensors();

  void quantize();
  void quantize_log();
  void table();
  void dequantize();
  void linear();
  void patches();
  void conv();
  void depthwise();
  void pad();
  void attention();
  void attention_codes(int64_t tokens, int64_t largest_value);
  void attention_terms(int64_t windows, int64_t tokens, int64_t heads);
  void norm();
  void l2_norm();
  void softmax();
  void matmul();
  void copy_rows();
  void activation();
  void binary();
  void concat();
  void pool();
  void reduce();
  void gather_rows();
  void cast();
  void add();
  void mul();
  void prepend();
  void slice();
  void transpose();
  void mean_rows();

  // Operands of the current step.
  const Buffer& in(size_t i) const { return plan_.buffers[static_cast<size_t>(step_->in[i])]; }
  const Buffer& out() const { return plan_.buffers[static_cast<size_t>(step_->out[0])]; }
  void inputs(size_t least, size_t most) const;
  void type(const Buffer& buffer, DType dtype) const;
  void integers(const Buffer& buffer) const;
  void function(std::initializer_list<const char*> allowed) const;  // string kind, tensor p
  void shape(const Buffer& buffer, const Shape& expected) const;
  void roles(std::initializer_list<const char*> allowed) const;
  void copies(const Buffer& from, const Buffer& to) const;

  // Checked attributes.
  int64_t integer(const char* key, int64_t low, int64_t high) const;
  const std::string& text(const char* key, const std::vector<std::string>& choices) const;
  const std::vector<int64_t>& list(const char* key) const;
  const Tensor& tensor(const char* role, DType dtype, const Shape& expected) const;
  std::span<const float> finite(const char* role, const Shape& expected) const;
  void multipliers(const char* role, int64_t count) const;
  void head_multipliers(const char* role, int64_t heads) const;
  int64_t thresholds() const;
  void output_codes() const { codes_up_to(highest_code(out())); }
  void codes_up_to(int64_t highest) const;
  void table_entries() const;
  void accumulator_bounds(int64_t n, int64_t k) const;
  Window window() const;
  void product_output(int64_t n);

  static int64_t highest_code(const Buffer& buffer) { return (int64_t{1} << buffer.bits) - 1; }
  static int64_t largest_distance(const Buffer& buffer, int64_t zero) {
    return std::max(std::abs(zero), std::abs(highest_code(buffer) - zero));
  }

  const Plan& plan_;
  const Step* step_ = nullptr;
  std::vector<bool> written_;
};

}  // namespace repquant::plan_checks
