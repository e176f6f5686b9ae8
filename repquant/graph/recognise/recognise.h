#pragma once
// Finds the composite ops of graph.h in what exporters write.
#include <string>
#include <utility>
#include <vector>

#include "repquant/graph/graph.h"

namespace repquant {

struct RecogniseReport {
  std::vector<std::pair<std::string, int>>
      found;                          // pattern -> how often, in the order of the passes
  std::vector<std::string> refused;   // "gelu at \"act\": relative difference 3.1e-02"
};

// Folds constants, then replaces linear layers, layer_norm, rms_norm, gelu, silu, L2 norms (lp_norm)
// and softmax attention (a fused qkv projection becomes one linear whose output one `split` hands to
// multi_head_attention).
// Each replacement is first evaluated on random inputs next to what it replaces, in double; where the
// largest difference exceeds 1e-5 times the largest absolute value, the graph stays as it is there and
// `refused` says so. Graph inputs, outputs and what they compute stay. Doing it again changes nothing.
RecogniseReport recognise(Graph& graph);

}   // namespace repquant
