#pragma once
// Cuts a graph into units that are calibrated one after the other: a stem, one unit a transformer
// block, a head; without attention one unit two layers. A cut is a value through which all data
// flows.
#include <string>
#include <vector>

#include "repquant/graph/graph.h"

namespace repquant::observe {

struct Block {
  std::string name;           // "stem", "blocks.0", ..., "head"
  std::vector<NodeId> nodes;  // in order
  ValueId input = kNoValue;   // the one value it reads (stem: graph input 0)
  ValueId output = kNoValue;  // the one value later units read (head: graph output 0)
};

// Every node of the order is in exactly one block. A graph without cuts is one block. Nodes that
// only read constants or the shape of the input belong to the first block that needs them.
std::vector<Block> blocks(const Graph& graph);

}  // namespace repquant::observe
