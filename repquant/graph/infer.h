#pragma once
// What shape inference knows, for the importer and passes. See infer_shapes in graph.h.
#include <optional>
#include <string>
#include <vector>

#include "repquant/graph/graph.h"

namespace repquant {

// The elements of an integer or boolean value (rank 0 or 1) where shapes fix them: constants, and
// what Shape, Gather, Concat, Cast, comparisons and arithmetic make of known dimensions.
std::optional<std::vector<int64_t>> known_integers(const Graph& graph, ValueId id);

// A dimension name from a file as a symbol; one that cannot take part in expressions becomes empty.
std::string symbol_from_file(const std::string& text);

}  // namespace repquant
