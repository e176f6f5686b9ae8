#pragma once
// A model file into the graph that calibration and lowering work on.
#include <filesystem>

#include "repquant/graph/graph.h"

namespace repquant {

// Reads the file by its content (ONNX), folds constants, recognises composite ops, folds BatchNorm,
// names nodes after their weights, infers shapes and verifies. Errors as load_onnx.
Graph load_model(const std::filesystem::path& path);

// The same without recognition: ops stay as the file has them (for `inspect` and comparisons).
Graph load_plain(const std::filesystem::path& path);

}  // namespace repquant
