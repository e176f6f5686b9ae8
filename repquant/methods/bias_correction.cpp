// Bias correction (Nagel et al. 2019): b += (W - W^) E[x^] for every rounded weight, in order, each
// behind the already corrected prefix. Or b += E[y] - E[y^], which has rounded activations in it.
#include <algorithm>

#include "repquant/methods/method.h"
#include "repquant/reconstruct/correct_biases.h"

namespace repquant::methods_rows {
namespace {

struct Options {
  std::string measure = "weights";
  template <class V> void visit(V&& v) {
    v(measure, "measure",
      "What moves into the bias: the mean error of rounded weights, or of the layer's output",
      Choices{{"weights", "outputs"}});
  }
};

void run(Workspace& ws, const Options& options) {
  for (const char* applied : {"bias_correction", "fold"}) {
    if (std::find(ws.applied.begin(), ws.applied.end(), applied) != ws.applied.end()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "bias_correction: already applied by an earlier pass", "drop this pass");
    }
  }
  reconstruct::correct_biases(ws, options.measure == "outputs");
  ws.applied.push_back("bias_correction");
}

}  // namespace

extern const Method bias_correction;
constinit const Method bias_correction = make_method<Options, run>(
    "bias_correction", "Moves the mean output error of rounded weights into biases",
    "Nagel et al. 2019 (arXiv 1906.04721)", {.data = true, .gradients = false});

}  // namespace repquant::methods_rows
