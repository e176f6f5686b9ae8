#pragma once
#include "repquant/interpret/workspace.h"

namespace repquant::reconstruct {

// For every linear and convolution whose weight is rounded and has not been folded, in order, each
// behind the already corrected prefix: b += (W_reference - W) E[x^]. With `outputs` b += E[y] -
// E[y^] instead, y of the reference: what rounded activations shift is corrected, too.
void correct_biases(Workspace& ws, bool outputs);

}  // namespace repquant::reconstruct
