#include "repquant/evaluate/score_json.h"

#include <cmath>

namespace repquant {

nlohmann::json score_json(const Scores& scores) {
  nlohmann::json json = {{"count", scores.count()}};
  if (!scores.targets.empty()) json["mse"] = target_mse(scores);
  if (!scores.has_labels()) return json;
  json["top1"] = top1(scores);
  json["top5"] = top5(scores);
  const Interval interval = wilson_interval(top_k_correct(scores, 1), scores.count());
  json["top1_interval"] = {interval.low, interval.high};
  return json;
}

nlohmann::json difference_json(const Scores& reference, const Scores& scores) {
  nlohmann::json json = nlohmann::json::object();
  const double snr = output_snr_db(reference, scores);
  if (std::isfinite(snr)) json["snr"] = snr;
  if (reference.signal) return json;
  json["agreement"] = agreement(reference, scores);
  if (reference.positions > 1) return json;
  json["kl"] = mean_kl(reference, scores);
  if (!scores.has_labels()) return json;
  const PairedDifference paired = paired_difference(reference, scores);
  json["difference"] = paired.difference;
  json["difference_interval"] = {paired.interval95.low, paired.interval95.high};
  json["only_reference"] = paired.only_a;
  json["only_model"] = paired.only_b;
  json["mcnemar_p"] = paired.mcnemar_p;
  return json;
}

}  // namespace repquant
