#include <cmath>

#include <fmt/format.h>

#include "repquant/report/testing.h"

namespace repquant::report {
namespace {

using nlohmann::json;

json score_rows() {
  return json::array({{{"name", "float"},
                       {"scheme", "float"},
                       {"top1", 80.46153846153847},
                       {"top5", 94.76923076923077},
                       {"count", 650},
                       {"ci_low", 77.234},
                       {"ci_high", 83.331},
                       {"bytes", 22911077},
                       {"seconds", nullptr}},
                      {{"name", "round_to_nearest w4a4"},
                       {"scheme", "w4a4"},
                       {"top1", 52.61538461538462},
                       {"top5", 76.3076923},
                       {"count", 650},
                       {"ci_low", 48.77},
                       {"ci_high", 56.43},
                       {"agreement", 55.3846},
                       {"kl", 1.6234},
                       {"bytes", 3412776},
                       {"seconds", 3.1417},
                       {"delta_top1", -27.84615},
                       {"delta_ci_low", -31.61},
                       {"delta_ci_high", -24.08}},
                      {{"name", "repquant <fast> & \"w4a4\""},
                       {"scheme", "w4a4"},
                       {"top1", 76.76923076923077},
                       {"top5", 92.923},
                       {"count", 650},
                       {"ci_low", 73.371},
                       {"ci_high", 79.853},
                       {"agreement", 86.1538},
                       {"kl", 0.118342},
                       {"bytes", 3412776},
                       {"seconds", 38.217},
                       {"delta_top1", -3.692307},
                       {"delta_ci_low", -5.713},
                       {"delta_ci_high", -1.671}}});
}

json layer_rows() {
  json layers = json::array();
  for (int block = 0; block < 12; ++block) {
    int at = 0;
    for (const char* part : {"attn.qkv", "attn.probabilities", "attn.proj", "mlp.fc1", "mlp.fc2"}) {
      const double sqnr =
          21.3 - 0.72 * block + 2.4 * std::sin(1.7 * block + at) - (at == 4 ? 3.1 : 0);
      layers.push_back({{"layer", fmt::format("blocks.{}.{}", block, part)},
                        {"kind", at == 1 ? "multi_head_attention" : "linear"},
                        {"activation_bits", 4},
                        {"sqnr_db_before", sqnr - 6.137 - 0.3 * at},
                        {"sqnr_db", sqnr},
                        {"cosine_before", 1 - 0.02 * std::pow(10.0, -sqnr / 20)},
                        {"cosine", 1 - 0.01 * std::pow(10.0, -sqnr / 20)},
                        {"output_mse_before", 9.1e-4 * (block + 1)},
                        {"output_mse", 3.2e-4 * (block + 1)}});
      if (at != 1) layers.back()["weight_bits"] = 4;
      ++at;
    }
  }
  return layers;
}

json range_rows() {
  json rows = json::array();
  for (int i = 0; i < 24; ++i) {
    std::vector<double> low, high, clip_low, clip_high, folded_low, folded_high;
    for (int c = 0; c < 192; ++c) {
      const double noise = std::abs(std::sin(12.9898 * c + 78.233 * i)) + 0.2;
      const double outlier = (c * 7 + i) % 61 == 0 ? 6.0 : 1.0, shift = 0.4 * std::cos(0.7 * c + i);
      low.push_back(shift - noise * outlier);
      high.push_back(shift + 1.2 * noise * outlier);
      clip_low.push_back(0.8 * low.back());
      clip_high.push_back(0.75 * high.back());
      folded_low.push_back(-1.0 - 0.35 * noise / 1.2);
      folded_high.push_back(1.0 + 0.5 * noise / 1.2);
    }
    rows.push_back({{"norm", fmt::format("blocks.{}.norm{}", i / 2, i % 2 + 1)},
                    {"before_low", low},
                    {"before_high", high},
                    {"clip_low", clip_low},
                    {"clip_high", clip_high},
                    {"folded_low", folded_low},
                    {"folded_high", folded_high}});
  }
  return rows;
}

json weight_rows() {
  json rows = json::array();
  for (int block = 0; block < 12; ++block) {
    for (const char* part : {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}) {
      std::vector<int64_t> codes;
      for (int code = -8; code < 8; ++code) {
        codes.push_back(static_cast<int64_t>(30000 * std::exp(-code * code / (4.0 + 1.1 * block))));
      }
      rows.push_back(
          {{"layer", fmt::format("blocks.{}.{}", block, part)}, {"codes", codes}, {"low", -8}});
    }
  }
  std::vector<int64_t> wide;
  for (int code = -128; code < 128; ++code) {
    wide.push_back(static_cast<int64_t>(900 * std::exp(-code * code / 1800.0)));
  }
  rows.push_back({{"layer", "patch_embed"}, {"codes", wide}, {"low", -128}});
  return rows;
}

json softmax_rows() {
  json rows = json::array();
  for (int block = 0; block < 12; ++block) {
    std::vector<int64_t> codes;
    for (int code = 0; code < 16; ++code) {
      codes.push_back(
          static_cast<int64_t>(60000 * std::exp(-std::pow(code - 9 - 0.2 * block, 2) / 9)));
    }
    rows.push_back(
        {{"layer", fmt::format("blocks.{}.attn", block)}, {"kind", "log"}, {"codes", codes}});
  }
  return rows;
}

}  // namespace

json example_record() {
  return {{"schema", "repquant/1"},
          {"title", "DeiT-Tiny, repquant w4a4"},
          {"rows", score_rows()},
          {"layers", layer_rows()},
          {"channel_ranges", range_rows()},
          {"weight_histograms", weight_rows()},
          {"softmax_code_histograms", softmax_rows()},
          {"measurements",
           {{{"stage", "clip"},
             {"subject", "blocks.0.norm1"},
             {"metric", "consumer_error_after"},
             {"value", 0.0123456}}}},
          {"seconds", 38.217},
          {"calibration", {{"count", 32}, {"seed", 0}}},
          {"provenance", {{"tool", "repquant 0.1.0"}, {"recipe", {{"scheme", "w4a4"}}}}}};
}

}  // namespace repquant::report
