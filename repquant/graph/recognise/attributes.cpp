// One spelling for attributes that exporters write or leave out.
#include "repquant/graph/recognise/matcher.h"

namespace repquant::patterns {

void canonical_attributes(Graph& graph) {
  for (const NodeId id : graph.order()) {
    Node& node = graph.node(id);
    Attrs kept;
    for (const auto& [name, value] : node.attrs.all()) {
      const auto* number = std::get_if<int64_t>(&value);
      const auto* text = std::get_if<std::string>(&value);
      const bool is_default = (name == "stash_type" && number && *number == 1) ||
                              (name == "auto_pad" && text && *text == "NOTSET") ||
                              (name == "allowzero" && number && *number == 0) ||
                              (name == "noop_with_empty_axes" && number && *number == 0);
      if (!is_default) kept.set(name, value);
    }
    if (node.op == OpKind::kLayerNorm || node.op == OpKind::kRmsNorm) {
      const auto& shape = graph.value(node.inputs[0]).shape;
      const int64_t axis = node.attrs.integer("axis", -1);
      kept.set("axis",
               shape && axis == static_cast<int64_t>(shape->size()) - 1 ? int64_t{-1} : axis);
      kept.set("epsilon", node.attrs.real("epsilon", 1e-5F));
    }
    if (node.op == OpKind::kSoftmax) kept.set("axis", node.attrs.integer("axis", -1));
    if (node.op == OpKind::kGelu) kept.set("approximate", node.attrs.text("approximate", "none"));
    node.attrs = std::move(kept);
  }
}

}   // namespace repquant::patterns
