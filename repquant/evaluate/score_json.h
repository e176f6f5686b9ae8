#pragma once
// Scores as JSON, for --json, run records and the quality part of an artifact.
#include <nlohmann/json.hpp>

#include "repquant/evaluate/metrics.h"

namespace repquant {

// {"count", with labels: "top1", "top5" (percent), "top1_interval": [low, high], with targets:
// "mse"}
nlohmann::json score_json(const Scores& scores);

// `scores` against `reference`: {"snr" (dB, left out when equal); of answers that name classes:
// "agreement" (percent), of one class an item: "kl" (nats), and with labels: "difference"
// (top-1 points), "difference_interval", "only_reference", "only_model", "mcnemar_p"}
nlohmann::json difference_json(const Scores& reference, const Scores& scores);

}  // namespace repquant
