#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/format.h>

#include "repquant/core/fields.h"
#include "repquant/load/onnx/messages.h"
#include "repquant/load/onnx/rewrite.h"

namespace repquant::load {
namespace {

struct Versions {
  std::string_view op;
  int64_t first, last;   // last 0: known to kReadableOpset
};

constexpr auto kVersions = std::to_array<Versions>({
#define REPQUANT_ONNX_VERSION(op, first, last) {op, first, last},
#include "repquant/load/onnx/versions.def"
#undef REPQUANT_ONNX_VERSION
});

// Ops of old opsets under a name that is gone.
bool renamed(const std::string& type, int64_t opset) {
  return (type == "Upsample" && opset < 10) || type == "Scatter";
}

}  // namespace

void check_op_version(const std::string& type, int64_t opset, const std::string& subject) {
  if (renamed(type, opset)) return;
  if (!op_from_onnx(type) || type == "Upsample") {
    std::string near;
    for (const auto& name : nearest(type, supported_onnx_ops()))
      near += (near.empty() ? "" : ", ") + name;
    unsupported(
        fmt::format("{}: expected one of the {} supported ops of opsets {} to {}, got {}", subject,
                    supported_onnx_ops().size(), kOldestOpset, kNewestOpset, in_quotes(type)),
        near.empty() ? "" : "nearest supported: " + near);
  }
  const auto row = std::find_if(kVersions.begin(), kVersions.end(),
                                [&](const Versions& v) { return v.op == type; });
  if (row == kVersions.end()) return;
  if (opset < row->first) {
    corrupt(fmt::format("{}: expected opset {} or later for {}, got {}", subject, row->first,
                        in_quotes(type), opset));
  }
  if (row->last != 0 && opset > row->last) {
    unsupported(
        fmt::format("{}: op {} has a newer version in opset {}, this build knows it up to {}",
                    subject, in_quotes(type), opset, row->last),
        "export with opset 23 or older");
  }
}

}  // namespace repquant::load
