#include "repquant/load/load.h"

#include "repquant/graph/conv_transpose.h"
#include "repquant/graph/fold_batch_norm.h"
#include "repquant/graph/fold_constants.h"
#include "repquant/graph/name_nodes.h"
#include "repquant/graph/recognise/recognise.h"
#include "repquant/load/onnx/onnx.h"

namespace repquant {

Graph load_plain(const std::filesystem::path& path) {
  Graph graph = load_onnx(path);
  infer_shapes(graph);
  return graph;
}

Graph load_model(const std::filesystem::path& path) {
  Graph graph = load_plain(path);
  fold_constants(graph);
  if (fold_batch_norm(graph) > 0) infer_shapes(graph);
  recognise(graph);
  fold_batch_norm(graph);   // norms behind a linear that recognition has just made
  fold_affine(graph);
  rewrite_conv_transpose(graph);
  name_nodes(graph);
  infer_shapes(graph);
  graph.verify();
  return graph;
}

}  // namespace repquant
