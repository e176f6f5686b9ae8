#pragma once
// Activation functions are found by what they compute: a part of the graph that reads one value and
// otherwise constants of one element is a function of a number, however it is written.
#include "repquant/graph/recognise/matcher.h"

namespace repquant::patterns {

struct ScalarTarget {
  std::string pattern;   // for the report
  Node node;             // op and attributes of the replacement
};

// Tries all parts around every node of op `anchor`, which each spelling contains: from a value up to
// eight ops before it to one up to six ops behind it. The first part that agrees with one of `targets`
// is replaced; one that only comes near is reported.
void recognise_scalar_functions(Matcher& m, OpKind anchor, std::span<const ScalarTarget> targets);

}   // namespace repquant::patterns
