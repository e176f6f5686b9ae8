#pragma once
// Appends buffers, steps and their tensors to a Plan; keeps step names unique.
#include <set>
#include <string>
#include <vector>

#include "repquant/core/plan.h"

namespace repquant::lowering {

class PlanBuilder {
 public:
  int add_buffer(std::string name, DType dtype, Shape item_shape, int bits);
  int add_real(std::string name, Shape item_shape) {
    return add_buffer(std::move(name), DType::kF32, std::move(item_shape), 32);
  }
  const Buffer& buffer(int index) const { return plan_.buffers[static_cast<size_t>(index)]; }

  // The reference is valid until the next call. The name gets a number when it is taken.
  Step& add_step(const std::string& op, const std::string& name, std::vector<int> in, int out);
  void add_tensor(Step& step, const std::string& role, Tensor tensor);
  void add_weights(Step& step, std::span<const int8_t> codes, int64_t n, int64_t k, int bits);
  template <class T>
  void add_vector(Step& step, const std::string& role, const std::vector<T>& values) {
    add_tensor(step, role, Tensor::of<T>({static_cast<int64_t>(values.size())}, values));
  }

  Plan& plan() { return plan_; }

 private:
  Plan plan_;
  std::set<std::string> names_;
};

}  // namespace repquant::lowering
