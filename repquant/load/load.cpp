#include "repquant/load/load.h"

#include "repquant/load/onnx/onnx.h"

namespace repquant {

Graph load_plain(const std::filesystem::path& path) {
  Graph graph = load_onnx(path);
  infer_shapes(graph);
  graph.verify();
  return graph;
}

Graph load_model(const std::filesystem::path& path) {
  Graph graph = load_plain(path);
  graph.remove_dead();
  graph.verify();
  return graph;
}

}  // namespace repquant
