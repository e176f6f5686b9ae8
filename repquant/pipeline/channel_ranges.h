#pragma once
// Channel ranges of normalization outputs, for the run record.
#include <nlohmann/json.hpp>

#include "repquant/interpret/workspace.h"

namespace repquant {

// One object a layer_norm or rms_norm whose output is quantized, as repquant/report/record.h has
// it: "before" on ws.reference, "folded" on the finished model, "clip" the bounds of the code in
// the unit of "before". Over the first `samples` calibration samples.
nlohmann::json channel_ranges(const Workspace& ws, int64_t samples);

}  // namespace repquant
