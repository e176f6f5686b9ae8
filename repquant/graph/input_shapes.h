#pragma once
// Models with free sizes, fixed to those of the data they are quantized for.
#include "repquant/graph/graph.h"

namespace repquant {

// Gives `input` the item shape [sizes without the batch], infers and folds what follows from it.
// Known sizes have to agree: kInvalidArgument. False where nothing was free.
bool fix_item_shape(Graph& graph, ValueId input, const Shape& item);

}  // namespace repquant
