#pragma once
#include "repquant/interpret/workspace.h"

namespace repquant::reconstruct {

// For every linear and convolution whose weight is rounded and has not been folded: b += (W_reference - W) E[x^].
void correct_biases(Workspace& ws);

}  // namespace repquant::reconstruct
