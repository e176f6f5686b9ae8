// Fuzz target of the artifact reader. An input is read in three ways:
//   as it stands: limits, container, checksums;
//   as a container whose checksums are repaired first, so that damage reaches the plan;
//   as the text of a plan over the tensors of the example plan, likewise repaired.
// Whatever is accepted must survive a round trip.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "repquant/core/artifact.h"
#include "repquant/core/example_plan.h"
#include "repquant/core/files.h"
#include "repquant/core/plan_json.h"
#include "repquant/core/strict_json.h"

namespace repquant {
namespace {

using Tensors = std::map<std::string, Tensor>;

std::string repaired(std::string_view text, const std::string& provenance, const Tensors& tensors) {
  nlohmann::json plan = parse_strict_json(text, "fuzz");
  if (!plan.is_object()) return std::string(text);
  plan["provenance_sha256"] = Sha256().update(provenance).hex();
  nlohmann::json& entries = plan["tensors"];
  if (!entries.is_object()) return plan.dump();
  for (auto& [name, entry] : entries.items()) {
    const auto found = tensors.find(name);
    if (!entry.is_object() || found == tensors.end()) continue;
    const std::byte* data = static_cast<const std::byte*>(found->second.data());
    entry["crc32c"] = crc32c({data, found->second.bytes()});
  }
  return plan.dump();
}

void check_plan(std::string_view text, const std::string& provenance, Tensors tensors) {
  const std::string fixed = repaired(text, provenance, tensors);
  const Plan plan = plan_from_json(fixed, provenance, tensors, "fuzz");
  verify_plan(plan);
  const std::string once = plan_to_json(plan);
  const Plan again = plan_from_json(once, provenance_to_json(plan), std::move(tensors), "fuzz");
  verify_plan(again);
  if (plan_to_json(again) != once) std::abort();
}

// Refusals by Error are the expected outcome; anything else is a finding.
template <class Action> void allow_refusal(const Action& action) {
  try {
    action();
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kInternal) std::abort();
  }
}

void run(std::span<const std::byte> bytes) {
  allow_refusal([&] { parse_artifact(bytes, "fuzz"); });
  allow_refusal([&] {
    SafetensorsFile file = parse_safetensors(bytes, "fuzz");
    const std::string text = file.metadata["repquant.plan"];
    const std::string provenance = file.metadata["repquant.provenance"];
    std::erase_if(file.tensors,
                  [](const auto& entry) { return entry.first.starts_with("__pad__"); });
    check_plan(text, provenance, std::move(file.tensors));
  });
  static const Plan example = example_plan();
  Tensors tensors;
  for (const auto& [name, tensor] : example.tensors) tensors[name] = tensor.data;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  allow_refusal([&] { check_plan(text, provenance_to_json(example), std::move(tensors)); });
}

}  // namespace
}  // namespace repquant

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  repquant::run(std::as_bytes(std::span(data, size)));
  return 0;
}
