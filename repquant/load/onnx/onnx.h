#pragma once
// ONNX files into Graph: opsets 9 to 23 (24 to 28 where every op's version is known), IR 3 to 14,
// external data, model-local functions and `If` with a known condition inlined. Ops are rewritten
// into their opset-23 form: attributes that became inputs are constants, Dropout is identity,
// Upsample is Resize. 16-bit and 8-bit floats are widened to F32, 4-bit integers to 8 bits.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "repquant/graph/graph.h"

namespace repquant {

// What a hostile file may cost. The defaults fit any model that fits into memory.
struct OnnxLimits {
  uint64_t file_bytes = uint64_t{2} << 30;       // protobuf's own bound
  uint64_t tensor_bytes = uint64_t{64} << 30;    // all constants together
  int64_t nodes = 1'000'000;                     // after inlining
};

// kNotFound, kCorruptFile (truncated, contradictory, cyclic, NaN weights) or kUnsupported (op,
// opset, type, domain), each naming the node or tensor. The graph passes verify(); shapes are not
// inferred.
Graph load_onnx(const std::filesystem::path& path, const OnnxLimits& limits = {});

// External data is looked up in `base_folder`; an empty one refuses it. `subject` names the file in
// messages.
Graph parse_onnx(std::span<const std::byte> bytes, const std::filesystem::path& base_folder,
                 std::string_view subject, const OnnxLimits& limits = {});

}  // namespace repquant
