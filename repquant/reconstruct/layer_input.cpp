#include "repquant/reconstruct/layer_input.h"

#include "repquant/interpret/ops/ops.h"

namespace repquant::reconstruct {

int64_t layer_groups(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  return node.op == OpKind::kConv ? node.attrs.integer("group", 1) : 1;
}

at::Tensor layer_input(const Workspace& ws, NodeId id, const at::Tensor& x) {
  const Node& node = ws.graph.node(id);
  if (node.op != OpKind::kConv) return x.reshape({1, -1, x.size(-1)});
  const at::Tensor& w = ws.constant(id, 1);
  at::Tensor image = x;
  std::vector<int64_t> kernel(w.sizes().begin() + 2, w.sizes().end());
  ops::Window window = ops::window_of(node, x, kernel);
  image = at::constant_pad_nd(image, ops::pad_argument(window.pad_begin, window.pad_end));
  if (kernel.size() == 1) {  // one spatial axis: an image of one row
    image = image.unsqueeze(2);
    for (auto* list : {&kernel, &window.strides, &window.dilations}) list->insert(list->begin(), 1);
  }
  REPQUANT_CHECK(kernel.size() == 2);
  const at::Tensor columns = at::im2col(image, kernel, window.dilations, {0, 0}, window.strides);
  const int64_t groups = layer_groups(ws.graph, id), width = columns.size(1) / groups;
  // [batch, groups, width, windows] -> [groups, batch * windows, width]
  return columns.reshape({columns.size(0), groups, width, -1})
      .permute({1, 0, 3, 2})
      .reshape({groups, -1, width});
}

}  // namespace repquant::reconstruct
