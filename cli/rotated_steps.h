#pragma once
// Which steps of a plan put out numbers in a rotated basis.
#include <cstdint>
#include <set>
#include <string>

#include "repquant/core/plan.h"

namespace repquant::cli {

// Offline rotations of a model, as its artifact says. Equal ones share one basis.
struct Rotations {
  bool residual = false, heads = false;
  uint64_t seed = 0;
  bool operator==(const Rotations&) const = default;
};
Rotations rotations(const Plan& plan);

// Residual: the stream from the embedding to the last norm, its writers, and what its norms put
// out. Heads: operands and results of attention. Everything else undoes the rotation.
std::set<std::string> rotated_steps(const Plan& plan, const Rotations& rotations);

}  // namespace repquant::cli
