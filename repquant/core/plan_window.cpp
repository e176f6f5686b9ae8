#include "repquant/core/plan_window.h"

#include <fmt/format.h>

namespace repquant {
namespace {

const std::vector<int64_t>& list(const Step& step, const char* key, size_t size) {
  const auto found = step.lists.find(key);
  if (found != step.lists.end() && found->second.size() == size) return found->second;
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("plan: step \"{}\" ({}): expected a list \"{}\" of {} numbers, got {}",
                          step.name, step.op, key, size,
                          found == step.lists.end() ? "none" : to_string(found->second)));
}

}  // namespace

Window Window::of(const Step& step) {
  const auto &kernel = list(step, "kernel", 2), &strides = list(step, "strides", 2),
             &dilations = list(step, "dilations", 2), &pads = list(step, "pads", 4);
  return {kernel[0],    kernel[1], strides[0], strides[1], dilations[0],
          dilations[1], pads[0],   pads[1],    pads[2],    pads[3]};
}

void Window::write(Step& step) const {
  step.lists["kernel"] = {height, width};
  step.lists["strides"] = {stride_y, stride_x};
  step.lists["dilations"] = {dilation_y, dilation_x};
  step.lists["pads"] = {top, left, bottom, right};
}

}  // namespace repquant
