#include "repquant/core/artifact.h"

#include <algorithm>

#include <fmt/format.h>

#include "repquant/core/files.h"
#include "repquant/core/plan_json.h"
#include "repquant/core/strict_json.h"

namespace repquant {
namespace {

constexpr const char* kFormat = "repquant";
constexpr const char* kVersion = "1.0";
constexpr size_t kLargestInlinePlan = 8u << 20;  // longer plans lie in the tensor __plan__
constexpr const char* kPlanTensor = "__plan__";
constexpr std::string_view kPad = "__pad__";
constexpr std::string_view kFeatures[] = {"log_codes", "log_softmax", "parity", "row_softmax",
                                          "table2"};

std::string features_of(const Plan& plan) {
  std::map<std::string, bool> used;
  for (const Step& step : plan.steps) {
    if (step.op == "quantize_log") used["log_codes"] = true;
    if (step.op != "attention") continue;
    const auto value = [&](const char* key) {
      const auto found = step.strings.find(key);
      return found == step.strings.end() ? std::string() : found->second;
    };
    if (value("codes") == "log") used["log_softmax"] = true;
    if (value("codes") == "row") used["row_softmax"] = true;
    if (value("pv") == "parity" || value("pv") == "table2") used[value("pv")] = true;
  }
  std::string list;
  for (const auto& [name, on] : used) list += (list.empty() ? "" : ",") + name;
  return list;
}

void check_features(std::string_view list, const std::string& subject) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    const std::string_view feature = list.substr(0, comma);
    if (std::find(std::begin(kFeatures), std::end(kFeatures), feature) == std::end(kFeatures)) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("artifact: {}: it requires the unknown feature \"{}\"", subject,
                              printable(feature)),
                  "a newer version of repquant is needed");
    }
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
}

const Tensor& data_of(const Tensor& tensor) { return tensor; }
const Tensor& data_of(const PlanTensor& tensor) { return tensor.data; }

// Digest over the plan's text, then each tensor in name order. Names hold no line feeds.
template <class Tensors> std::string digest_of(std::string_view plan_text, const Tensors& tensors) {
  Sha256 digest;
  digest.update(plan_text);
  for (const auto& [name, entry] : tensors) {
    const Tensor& tensor = data_of(entry);
    const std::span<const std::byte> bytes(static_cast<const std::byte*>(tensor.data()),
                                           tensor.bytes());
    digest.update(fmt::format("\n{}\n{}\n{}\n{}", name, name_of(tensor.dtype()),
                              to_string(tensor.shape()), sha256_hex(bytes)));
  }
  return digest.hex();
}

const std::string& metadata_at(const SafetensorsFile& file, const std::string& key,
                               const std::string& subject) {
  const auto found = file.metadata.find(key);
  if (found != file.metadata.end()) return found->second;
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("artifact: {}: expected metadata \"{}\", got none", subject, key),
              "is it an artifact of repquant?");
}

void check_version(const std::string& version, const std::string& subject) {
  const bool form = version.size() >= 3 && version.find('.') != std::string::npos &&
                    version.find_first_not_of("0123456789.") == std::string::npos;
  if (form && version.substr(0, version.find('.')) == "1") return;
  throw Error(
      form ? ErrorCode::kUnsupported : ErrorCode::kCorruptFile,
      fmt::format("artifact: {}: expected version 1.x, got \"{}\"", subject, printable(version)));
}

// Takes the padding out; it must be zeros, so that every byte of a file is accounted for.
void remove_padding(std::map<std::string, Tensor>& tensors, const std::string& subject) {
  for (auto it = tensors.begin(); it != tensors.end();) {
    if (!it->first.starts_with(kPad)) {
      ++it;
      continue;
    }
    const std::byte* data = static_cast<const std::byte*>(it->second.data());
    const bool zeros =
        std::all_of(data, data + it->second.bytes(), [](std::byte b) { return b == std::byte{0}; });
    if (!zeros || it->second.dtype() != DType::kU8 || it->second.rank() != 1) {
      throw Error(ErrorCode::kCorruptFile, fmt::format("artifact: {}: expected zeros in \"{}\"",
                                                       subject, printable(it->first)));
    }
    it = tensors.erase(it);
  }
}

std::string take_plan_text(SafetensorsFile& file, const std::string& subject) {
  const auto stored = file.tensors.find(kPlanTensor);
  if (stored == file.tensors.end()) return metadata_at(file, "repquant.plan", subject);
  if (file.metadata.contains("repquant.plan") || stored->second.dtype() != DType::kU8) {
    throw Error(ErrorCode::kCorruptFile, fmt::format("artifact: {}: expected one plan", subject));
  }
  std::string text(static_cast<const char*>(stored->second.data()), stored->second.bytes());
  file.tensors.erase(stored);
  return text;
}

// Tensors in the order of the steps that read them, then the rest by name.
std::vector<std::pair<std::string, const Tensor*>> in_step_order(const Plan& plan) {
  std::vector<std::pair<std::string, const Tensor*>> list;
  std::map<std::string, const Tensor*> left;
  for (const auto& [name, tensor] : plan.tensors) left[name] = &tensor.data;
  for (const Step& step : plan.steps) {
    for (const auto& [role, name] : step.tensors) {
      const auto found = left.find(name);
      if (found == left.end()) continue;
      list.emplace_back(*found);
      left.erase(found);
    }
  }
  list.insert(list.end(), left.begin(), left.end());
  return list;
}

}  // namespace

std::string artifact_digest(const Plan& plan) {
  return digest_of(plan_to_json(plan), plan.tensors);
}

std::string write_artifact(const std::filesystem::path& path, const Plan& plan) {
  verify_plan(plan);
  const std::string text = plan_to_json(plan);
  const std::string digest = digest_of(text, plan.tensors);
  std::map<std::string, std::string> metadata = {{"format", kFormat},
                                                 {"repquant.version", kVersion},
                                                 {"repquant.requires", features_of(plan)},
                                                 {"repquant.provenance", provenance_to_json(plan)},
                                                 {"repquant.digest", digest}};
  std::vector<std::pair<std::string, const Tensor*>> tensors = in_step_order(plan);
  Tensor long_plan;
  if (text.size() > kLargestInlinePlan) {
    long_plan =
        Tensor::of<uint8_t>({static_cast<int64_t>(text.size())},
                            std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
    tensors.emplace_back(kPlanTensor, &long_plan);
  } else {
    metadata["repquant.plan"] = text;
  }
  write_safetensors(path, metadata, tensors, true);
  return digest;
}

Plan parse_artifact(std::span<const std::byte> bytes, const std::string& subject,
                    const ArtifactLimits& limits) {
  SafetensorsFile file = parse_safetensors(bytes, subject, limits);
  if (metadata_at(file, "format", subject) != kFormat) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("artifact: {}: expected format \"repquant\"", subject),
                "is it an artifact of repquant?");
  }
  check_version(metadata_at(file, "repquant.version", subject), subject);
  check_features(metadata_at(file, "repquant.requires", subject), subject);
  remove_padding(file.tensors, subject);
  const std::string text = take_plan_text(file, subject);
  const std::string digest = digest_of(text, file.tensors);
  if (metadata_at(file, "repquant.digest", subject) != digest) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("artifact: {}: the digest does not match the content: "
                            "the file is damaged",
                            subject));
  }
  Plan plan = plan_from_json(text, metadata_at(file, "repquant.provenance", subject),
                             std::move(file.tensors), "artifact: " + subject, limits.json_depth);
  verify_plan(plan);
  return plan;
}

Plan read_artifact(const std::filesystem::path& path, const ArtifactLimits& limits) {
  const MappedFile file(path);
  return parse_artifact(file.bytes(), fmt::format("\"{}\"", path.string()), limits);
}

bool is_artifact(const std::filesystem::path& path) {
  try {
    const MappedFile file(path);
    const std::span<const std::byte> bytes = file.bytes();
    if (bytes.size() < 16) return false;
    uint64_t size = 0;
    for (size_t i = 0; i < 8; ++i) size |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    const std::string_view rest(reinterpret_cast<const char*>(bytes.data()) + 8, bytes.size() - 8);
    // The file may be damaged: whether it means to be an artifact shows in one key.
    return rest[0] == '{' && rest.substr(0, std::min<uint64_t>(size, rest.size()))
                                     .find("\"format\":\"repquant\"") != std::string_view::npos;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace repquant
