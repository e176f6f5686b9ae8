#pragma once
// The work folder of a run: a lock, what identifies the run, and what each finished unit changed. A
// run that was killed at any moment and started again gives the same bytes.
#include <filesystem>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "repquant/interpret/workspace.h"

namespace repquant {

enum class Resume { kAuto, kNever, kRequire };
Resume parse_resume(const std::string& text);  // "auto", "never", "require"; kInvalidArgument

// Held while it lives: one run a folder. Made when missing.
class WorkFolder {
 public:
  // Throws kInvalidArgument when another process holds the folder, or it cannot be made.
  explicit WorkFolder(std::filesystem::path path);
  ~WorkFolder();  // releases; keeps the files
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  bool existed() const { return existed_; }
  // While the files of `out` get their names: a run killed then may replace what it wrote, and
  // nothing else. `digest`: SHA-256 of the file.
  void claim(const std::filesystem::path& out, const std::string& digest);
  bool owns(const std::filesystem::path& out) const;  // claimed, and the file is still that one
  void release();
  void remove();  // the files, then the folder if nothing else is in it

 private:
  std::filesystem::path path_;
  int lock_ = -1;
  bool existed_ = false;
};

class FolderCheckpoint final : public Checkpoint {
 public:
  // `fingerprint` is whatever must be equal for saved state to be used: model, recipe, calibration,
  // version, CPU. A saved one that differs throws kInvalidArgument naming the first difference,
  // unless resume is kNever, which discards it. kRequire throws when there is none.
  FolderCheckpoint(const std::filesystem::path& folder, const nlohmann::json& fingerprint,
                   Resume resume);

  bool restore(Workspace& ws, int unit) override;
  void save(const Workspace& ws, int unit) override;
  int restored() const { return restored_; }  // units so far

 private:
  std::filesystem::path unit_path(int unit) const;
  void remember(const WeightMap& weights);

  std::filesystem::path folder_;
  int pass_ = -1;  // counts passes that save: each starts at unit 0
  int restored_ = 0;
  size_t rows_seen_ = 0;                    // of the report
  std::map<ValueId, std::string> digests_;  // of the weights as last saved or restored
};

}  // namespace repquant
