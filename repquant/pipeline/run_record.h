#pragma once
// What a run leaves for `repquant report`: everything it measured, as JSON.
#include <map>

#include "repquant/pipeline/quantize.h"

namespace repquant {

// Layer -> SQNR in dB behind the last pass.
std::map<std::string, double> layer_sqnr(const Report& report);

nlohmann::json run_record(const QuantizeJob& job, const Calibrated& run, const Plan& plan,
                          const QuantizeOutcome& outcome);

}  // namespace repquant
