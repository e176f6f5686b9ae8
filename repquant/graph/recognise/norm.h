#pragma once
// What the two norms are made of.
#include "repquant/graph/recognise/matcher.h"

namespace repquant::patterns {

// v = t * t, as Pow or Mul: t.
std::optional<ValueId> squared(const Matcher& m, ValueId v);
// v = ReduceMean of t over the last axis, which is kept: t.
std::optional<ValueId> mean_over_last(const Matcher& m, ValueId v);

struct Normalised {
  ValueId numerator;     // divided by
  ValueId mean_square;   // sqrt(mean_square + epsilon)
  double epsilon;
};
// node = numerator / sqrt(mean_square + epsilon), by Div, or Mul with Reciprocal, 1 / or Pow.
std::optional<Normalised> normalised(const Matcher& m, const Node& node);

struct Affine {
  std::optional<ValueId> gamma, beta;   // as [C]
  ValueId output;
};
// A Mul, then (if `with_beta`) an Add of constants of one number a channel, where they follow.
Affine affine_after(Matcher& m, ValueId value, int64_t channels, bool with_beta);

// Replaces by `op` with attributes epsilon and axis -1; without gamma, a vector of ones is made.
bool apply_norm(Matcher& m, OpKind op, const std::string& subject, ValueId x, double epsilon,
                int64_t channels, const Affine& affine);

}   // namespace repquant::patterns
