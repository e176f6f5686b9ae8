#pragma once
// How many inputs and outputs an op takes, absent optional ones in between counted.
#include "repquant/graph/graph.h"

namespace repquant {

struct Arity {
  int min_inputs = 1, max_inputs = 1, min_outputs = 1, max_outputs = 1;
};
Arity arity_of(OpKind op);

}  // namespace repquant
