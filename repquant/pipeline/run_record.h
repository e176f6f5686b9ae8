#pragma once
// What a run leaves for `repquant report`: everything it measured, as JSON.
#include <map>

#include "repquant/pipeline/quantize.h"

namespace repquant {

// Layer -> SQNR in dB behind the last pass.
std::map<std::string, double> layer_sqnr(const Report& report);

// The "layers" of repquant/report/record.h: linears, convolutions and attentions in execution
// order.
nlohmann::json layer_rows(const Workspace& ws);

nlohmann::json run_record(const QuantizeJob& job, const Calibrated& run, const Plan& plan,
                          const QuantizeOutcome& outcome);

}  // namespace repquant
