#pragma once
// What is added to attention scores.
#include "repquant/graph/recognise/matcher.h"

namespace repquant::patterns {

struct MaskTerm {
  enum Kind {
    kAdded,       // value is a float tensor
    kFillWhere,   // value is a condition: scores become `fill` where it holds
    kKeepWhere,   // scores become `fill` where it does not hold
  };
  ValueId value = kNoValue;
  Kind kind = kAdded;
  double fill = 0;
};

// Shifted windows: Reshape(Add(Reshape(s), constant)) that ends in the shape of s is s plus a constant.
struct WindowMask {
  ValueId scores;
  MaskTerm term;
};
std::optional<WindowMask> window_mask(Matcher& m, const Node& reshape);

struct CombinedMask {
  bool causal = false;
  ValueId constant = kNoValue;   // the sum of the constant terms, if there are any
  std::vector<MaskTerm> terms;   // what depends on the model's input
};

// Sums constants, and finds causal masks: 0 up to the diagonal and at most -10000 behind it, constant or
// computed from shapes alone. `scores` is [.., H, T, S], or [.., T, S] without a head axis; the result
// is for scores with one. nullopt: the terms do not fit.
std::optional<CombinedMask> combine_mask(Matcher& m, std::span<const MaskTerm> terms,
                                         const SymbolicShape* scores, bool head_axis);

}   // namespace repquant::patterns
