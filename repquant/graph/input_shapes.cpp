#include "repquant/graph/input_shapes.h"

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/graph/fold_constants.h"

namespace repquant {

bool fix_item_shape(Graph& graph, ValueId input, const Shape& item) {
  Value& value = graph.value(input);
  if (!value.shape) value.shape.emplace(item.size() + 1);
  SymbolicShape& shape = *value.shape;
  const auto refuse = [&] {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("data: input \"{}\": expected {}, got items {}", value.name,
                            to_string(shape), to_string(item)),
                "check --crop and --resize against the model's input");
  };
  if (shape.size() != item.size() + 1) refuse();
  bool free = false;
  for (size_t i = 0; i < item.size(); ++i) {
    Dim& dim = shape[i + 1];
    if (dim.known() && dim.size != item[i]) refuse();
    free = free || !dim.known();
    dim = Dim{item[i], {}};
  }
  if (!free) return false;
  infer_shapes(graph);
  fold_constants(graph);
  infer_shapes(graph);
  return true;
}

}  // namespace repquant
