// Fuzz target of the ONNX importer and of shape inference. Refusals by Error are the expected outcome;
// a broken invariant, a crash or more than the memory allowed is a finding.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "repquant/graph/graph.h"
#include "repquant/load/onnx/onnx.h"

namespace {

// Protobuf messages of empty submessages grow about a hundredfold; 1 MiB of file stays below 512 MiB.
constexpr size_t kMostBytes = size_t{1} << 20;

repquant::OnnxLimits limits() {
  repquant::OnnxLimits small;
  small.file_bytes = kMostBytes;
  small.tensor_bytes = uint64_t{64} << 20;
  small.nodes = 5000;
  return small;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > kMostBytes) return 0;
  try {
    repquant::Graph graph = repquant::parse_onnx(std::as_bytes(std::span(data, size)), {}, "fuzz", limits());
    infer_shapes(graph);
    print(graph);
    graph.remove_dead();
    graph.verify();
  } catch (const repquant::Error& error) {
    if (error.code() == repquant::ErrorCode::kInternal) std::abort();
  }
  return 0;
}
