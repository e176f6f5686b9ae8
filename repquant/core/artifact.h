#pragma once
// The on-disk program: an ordinary safetensors file with the plan in its metadata
// (docs/artifact.md). Reading treats the file as hostile; writing is atomic (temporary name in the
// same folder, fsync, rename) and reads its own output back.
#include <filesystem>
#include <map>
#include <string>

#include "repquant/core/plan.h"

namespace repquant {

struct ArtifactLimits {
  uint64_t header_bytes = 100ull << 20;
  uint64_t tensors = 1'000'000;
  size_t name_bytes = 512;
  int json_depth = 64;
};

// A safetensors file as it stands: names, metadata and tensors. Used for artifacts and for data.
struct SafetensorsFile {
  std::map<std::string, std::string> metadata;
  std::map<std::string, Tensor> tensors;
};
SafetensorsFile read_safetensors(const std::filesystem::path& path,
                                 const ArtifactLimits& limits = {});
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& subject,
                                  const ArtifactLimits& limits = {});
// Tensors in the given order, each padded to 64 bytes by __pad__N tensors when `align` is set.
void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, std::string>& metadata,
                       const std::vector<std::pair<std::string, const Tensor*>>& tensors,
                       bool align);

// Digest: lower-case hex of SHA-256 over the plan's text, then for each tensor in name order
// "\n" name "\n" dtype "\n" shape as "[2, 3]" "\n" hex SHA-256 of its bytes. The plan's text holds
// the digest of the provenance, so every byte of an artifact is covered. Writing verifies the plan
// first; equal plans give equal bytes. Reading checks limits, crc32c, digest and plan before it
// returns.
std::string write_artifact(const std::filesystem::path& path, const Plan& plan);
Plan read_artifact(const std::filesystem::path& path, const ArtifactLimits& limits = {});
Plan parse_artifact(std::span<const std::byte> bytes, const std::string& subject,
                    const ArtifactLimits& limits = {});
bool is_artifact(const std::filesystem::path& path);  // by content, not by name
std::string artifact_digest(const Plan& plan);

}  // namespace repquant
