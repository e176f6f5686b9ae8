#pragma once
// Where the elements of an attention operand come from. The chain of data-moving ops before it is not
// matched op by op: it is run on element positions, and the result is compared with the wanted layout.
#include "repquant/graph/recognise/matcher.h"

namespace repquant::patterns {

// A matrix product's operand [.., H, T, d] (or [.., T, d] without a head axis).
enum class Operand {
  kRowsByHead,      // as above: queries, values
  kColumnsByHead,   // the last two exchanged: keys
};

struct Source {
  ValueId base = kNoValue;
  bool headed = false;    // base is [.., KV, T, d]; else [.., T, C]
  int64_t offset = 0;     // not headed: the operand is C's slice [offset, offset + heads * width)
  int64_t channels = 0;   // C
  int64_t heads = 0;      // KV: 1 or more operand heads read each
  int64_t width = 0;      // d
  double scale = 1;       // product of the constants met on the way
  double epsilon = 0;     // > 0: on the way every head of a token was divided by max(l2, epsilon)
};

// The earliest value before `operand` from which it is gathered in head order. nullopt: none, not even
// the operand itself.
std::optional<Source> trace_source(Matcher& m, ValueId operand, Operand kind, bool head_axis);

// What follows attention's result [.., H, T, d] and only moves it: the value that holds it as
// [.., T, H*d] in memory order. `exact`: its shape is that, too. Without a head axis, the result itself.
struct Merged {
  ValueId value = kNoValue;
  bool exact = true;
};
std::optional<Merged> merged_heads(Matcher& m, ValueId result, bool head_axis);

}   // namespace repquant::patterns
