#pragma once
// Which sites a recipe quantizes, and with how many bits.
#include <map>
#include <vector>

#include "repquant/interpret/workspace.h"
#include "repquant/pipeline/recipe.h"

namespace repquant {

// Linears and convolutions with constant weights, and attention operands; linears of a spectral
// front end (around a logarithm) stay in float. Convolutions that read
// the image and their weights take 8 bits, whatever the scheme; the head takes the recipe's
// head_bits. Throws kInvalidArgument for a rule that matches nothing, for head_bits where no linear
// ends the model, and for a granularity without attention.
std::map<Site, SiteTarget> make_targets(const Workspace& ws, const Recipe& recipe);

// The head: linears from which no other linear, convolution or attention lies on a way to a graph
// output. More than one where a model has several (distilled transformers).
std::vector<NodeId> head_linears(const Graph& graph);

}  // namespace repquant
