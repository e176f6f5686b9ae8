#pragma once
// Simplifications that need no pattern: what a graph computes, and its inputs and outputs, stay.
#include "repquant/graph/graph.h"

namespace repquant {

// Repeats until nothing changes:
//   - nodes whose inputs are all constant become constants (results up to 64 MiB; ops the scalar
//     evaluator covers), and so do integer tensors computed from known dimensions;
//   - Identity, Dropout, Casts to the same type, Reshapes, Expands and Transposes without effect go;
//     a Transpose of a Transpose becomes one;
//   - the target of every Reshape and Expand whose dimensions are understood becomes a constant: known
//     sizes as they are, one unknown size as -1, more of them as 0 (copied) where the position is the
//     same. An Expand to a free dimension of a graph input ("batch") keeps a computed shape, in one
//     form: Concat of Shape(input)[axis, axis + 1) and constants;
//   - dead code goes.
// Shapes are inferred before and after. Throws what infer_shapes throws.
void fold_constants(Graph& graph);

}   // namespace repquant
