#pragma once
// The forms of `repquant bench kernels` that are no plain products: norms, softmax, tables, codes,
// attention, convolutions. Each row of a family is compared with the scalar row before it is timed.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "repquant/runtime/kernels/isa.h"

namespace repquant::cli {

struct FamilyForm {
  std::string kernel, form;  // "norm/avx2", "rms_norm 197x192 to u8"
  runtime::Isa isa = runtime::Isa::kScalar;
  double elements = 0;    // of the output; of attention: scores
  double operations = 0;  // of 8-bit products; 0: none
  double floor_ns = 0;    // an element may take at most so long with AVX512-VNNI; 0: no demand
  double floor_of_peak = 0, goal_of_peak = 0;  // likewise of the register peak
  std::function<void()> call;                  // keeps its operands
  std::vector<double> seconds, peak;           // by rounds
};

// Rows within `most` that run here, the scalar ones left out. Throws kInternal when a row differs
// from the scalar one.
std::vector<std::unique_ptr<FamilyForm>> family_forms(runtime::Isa most);

}  // namespace repquant::cli
