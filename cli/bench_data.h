#pragma once
// The inputs and the float model of a benchmark: from options, else from the run record.
#include "cli/bench_contenders.h"
#include "cli/data_options.h"

namespace repquant::cli {

// ARTIFACT.run.json, or null where there is none that can be read.
nlohmann::json run_record_beside(const std::filesystem::path& artifact);
// `given`, else the model that the record names, where it was or beside the artifact. Throws
// kInvalidArgument naming --float.
std::filesystem::path find_float_model(const std::string& given,
                                       const std::filesystem::path& artifact,
                                       const nlohmann::json& record);
// --data, else the calibration images of the record, else random normal numbers: `source` says.
// `needed`: a warning goes out when the numbers are random.
BenchData make_bench_data(DataRequest& request, const nlohmann::json& record,
                          const OpenedModel& model, int64_t batch, bool needed,
                          const Context& context);

}  // namespace repquant::cli
