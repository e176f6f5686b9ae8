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
// head_bits, weights of depthwise convolutions its depthwise_bits; linears with a rule of format
// "float" are not there. Throws kInvalidArgument for a rule that matches nothing, for head_bits
// where no layer ends the model, and for a granularity without attention; kUnsupported for a float
// rule of what is not linear.
std::map<Site, SiteTarget> make_targets(const Workspace& ws, const Recipe& recipe);

// The head: linears and convolutions from which no other, and no attention, lies on a way to a
// graph output. More than one where a model has several (distilled transformers).
std::vector<NodeId> head_layers(const Graph& graph);

}  // namespace repquant
