#pragma once
// Readable node names from what a file still says.
#include "repquant/graph/graph.h"

namespace repquant {

// Names nodes after their parameters: "blocks.0.attn.qkv" for a linear, conv, norm or embedding
// whose constant is "blocks.0.attn.qkv.weight" (or .bias, where exporters lost the other);
// multi_head_attention after the module of its projections ("blocks.0.attn"), an activation
// "blocks.0.mlp.act". A linear whose constants have no such names takes its module path from the
// node name ("/blocks.0/attn/qkv/MatMul") or its place after the nearest named norm: attn.q,
// attn.k, attn.v, attn.proj, mlp.fc1, mlp.fc2. Constants without a name of their own follow. Other
// names stay; all are unique. Doing it again changes nothing.
void name_nodes(Graph& graph);

}  // namespace repquant
