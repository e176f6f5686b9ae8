#pragma once
// Super-resolution: whole images or tiles through a model, PSNR of the luma against the originals.
#include <filesystem>
#include <string>
#include <vector>

#include "repquant/core/progress.h"
#include "repquant/data/dataset.h"
#include "repquant/data/image.h"
#include "repquant/evaluate/evaluate.h"

namespace repquant {

// Images larger than the model's input go through it in squares of `size` that overlap: `margin`
// pixels at inner edges are not used. Smaller images are mirrored at the right and lower edge (the
// edge pixel repeated). size 0: whole images.
struct Tiling {
  int64_t size = 0, margin = 0;
};
Tiling parse_tiling(const std::string& text);  // "64:8" or "64"; kInvalidArgument

// `low` [3, H, W] of 0 .. 1 -> [3, s H, s W] as the model answers, s its scale.
Tensor upscale(const Model& model, const Tensor& low, const Tiling& tiling);

// Clipped to 0 .. 1, times 255, rounded half to even.
Image to_image(const Tensor& pixels);

// Of Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, not rounded, without `border` pixels on each
// side, peak 255, dB. Both of the same size and 3 channels.
double luma_psnr_db(const Image& a, const Image& b, int64_t border);

struct PairScore {
  std::string name;
  double psnr = 0;
};
// Every image of `low` (whole pixels, x / 255) against the image of `high` (a folder) with the same
// stem, or the stem without its end "x<scale>"; the original is cut on the right and below to the
// size of the answer. The border cut is the scale. Throws kNotFound for a missing original,
// kCorruptFile where sizes do not fit.
std::vector<PairScore> evaluate_pairs(const Model& model, const Dataset& low,
                                      const std::filesystem::path& high, const Tiling& tiling,
                                      const EvaluateOptions& options);

}  // namespace repquant
