#include "repquant/graph/recognise/recognise.h"

#include "repquant/graph/fold_constants.h"
#include "repquant/graph/recognise/matcher.h"

namespace repquant {

RecogniseReport recognise(Graph& graph) {
  RecogniseReport report;
  fold_constants(graph);
  patterns::Matcher matcher(graph, report);
  using Pass = void (*)(patterns::Matcher&);
  const Pass passes[] = {patterns::recognise_linear,   patterns::recognise_layer_norm,
                         patterns::recognise_rms_norm, patterns::recognise_gelu,
                         patterns::recognise_silu,     patterns::recognise_l2_norm,
                         patterns::recognise_attention};
  for (const Pass pass : passes) {
    pass(matcher);
    graph.remove_dead();
    matcher.refresh();
  }
  patterns::canonical_attributes(graph);
  fold_constants(graph);
  return report;
}

}   // namespace repquant
