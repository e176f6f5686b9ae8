#include "repquant/pipeline/checkpoint.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <regex>

#include <fmt/format.h>

#include "repquant/core/artifact.h"
#include "repquant/core/fields.h"
#include "repquant/core/files.h"
#include "repquant/core/strict_json.h"
#include "repquant/pipeline/plan_state.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFingerprint = "run.json";
constexpr const char* kLock = "lock";
constexpr const char* kClaim = "output.json";

// A unit's state, the fingerprint, or what a crash left of writing one. The folder may be the
// user's: nothing else in it is ours.
bool is_state_file(const fs::path& path) {
  static const std::regex form(
      "pass[0-9]+_unit[0-9]+\\.safetensors(\\.[0-9]+\\.[0-9]+\\.tmp)?|"
      "(run|output)\\.json\\.[0-9]+\\.[0-9]+\\.tmp");
  const std::string name = path.filename().string();
  return name.size() < 128 && std::regex_match(name, form);
}

void remove_units(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (is_state_file(entry.path())) fs::remove(entry.path(), ignored);
  }
}

json read_json(const fs::path& path) {
  const std::vector<std::byte> bytes = read_file(path);
  return parse_strict_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "resume");
}

// A digest, for names need not be UTF-8.
std::string path_digest(const fs::path& path) {
  const std::string name = fs::weakly_canonical(path).string();
  return sha256_hex(std::as_bytes(std::span(name.data(), name.size())));
}

bool same_file(int fd, const fs::path& path) {
  struct stat held {
  }, named{};
  return ::fstat(fd, &held) == 0 && ::stat(path.c_str(), &named) == 0 &&
         held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

// Strides are part of the state: they decide the order in which a product is summed.
json store_weight(const at::Tensor& tensor) {
  return {{"sizes", tensor.sizes().vec()}, {"strides", tensor.strides().vec()}};
}

at::Tensor restore_weight(const Tensor& stored, const json& layout) {
  const at::Tensor values = to_aten(stored);
  const auto sizes = layout.at("sizes").get<std::vector<int64_t>>();
  const auto strides = layout.at("strides").get<std::vector<int64_t>>();
  at::Tensor tensor = at::empty_strided(sizes, strides, values.options());
  tensor.copy_(values.reshape(sizes));
  return tensor;
}

std::string digest(const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().contiguous();
  Sha256 sum;
  const std::vector<int64_t> strides = tensor.strides().vec();
  sum.update(fmt::format("{} {} ", to_string(host.sizes().vec()), to_string(strides)));
  return sum.update({static_cast<const std::byte*>(host.const_data_ptr()), host.nbytes()}).hex();
}

std::string quoted(const json& value) { return value.is_null() ? "nothing" : value.dump(); }

[[noreturn]] void differs(const json& saved, const json& now) {
  const json patch = json::diff(saved, now);
  const std::string where = patch.at(0).at("path").get<std::string>();
  const json::json_pointer pointer(where);
  const json before = saved.contains(pointer) ? saved.at(pointer) : json(),
             after = now.contains(pointer) ? now.at(pointer) : json();
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("resume: saved state is of another run: {} changed: {} -> {}",
                          where.substr(1), quoted(before), quoted(after)),
              "use --resume never to start again");
}

}  // namespace

Resume parse_resume(const std::string& text) {
  if (text == "auto") return Resume::kAuto;
  if (text == "never") return Resume::kNever;
  if (text == "require") return Resume::kRequire;
  throw Error(ErrorCode::kInvalidArgument,
              "--resume: " + unknown_name("value", text, {"auto", "never", "require"}));
}

// ---- WorkFolder ---------------------------------------------------------------------------------
WorkFolder::WorkFolder(fs::path path) : path_(std::move(path)) {
  std::error_code error;
  for (int attempt = 0; attempt < 10; ++attempt) {
    fs::create_directory(path_, error);
    if (error && !fs::is_directory(path_)) {
      const bool full = error.value() == ENOSPC || error.value() == EDQUOT;
      const bool missing = error.value() == ENOENT || error.value() == ENOTDIR;
      throw Error(full      ? ErrorCode::kResourceExhausted
                  : missing ? ErrorCode::kNotFound
                            : ErrorCode::kInvalidArgument,
                  fmt::format("write: \"{}\": {}", path_.string(), error.message()),
                  "choose a folder that can be written, or pass --work-dir");
    }
    const fs::path name = path_ / kLock;
    lock_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock_ < 0 && errno == ENOENT) continue;  // a finishing run removed the folder
    if (lock_ < 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("write: \"{}\": {}", name.string(), std::strerror(errno)));
    }
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
      ::close(lock_);
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("lock: \"{}\": another run writes this output", path_.string()),
                  "wait for it, or choose another output");
    }
    if (same_file(lock_, name)) {
      existed_ = fs::exists(path_ / kFingerprint, error);
      return;
    }
    ::close(lock_);
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("lock: \"{}\": cannot be taken", path_.string()));
}

WorkFolder::~WorkFolder() {
  if (lock_ >= 0) ::close(lock_);
}

void WorkFolder::claim(const fs::path& out, const std::string& digest) {
  write_file_atomically(
      path_ / kClaim, json({{"path_sha256", path_digest(out)}, {"sha256", digest}}).dump() + "\n");
}

bool WorkFolder::owns(const fs::path& out) const {
  if (!fs::exists(path_ / kClaim)) return false;
  try {
    const json claim = read_json(path_ / kClaim);
    return claim.at("path_sha256") == path_digest(out) &&
           claim.at("sha256") == sha256_hex(read_file(out));
  } catch (const std::exception&) {  // damaged: it says nothing
    return false;
  }
}

void WorkFolder::release() {
  std::error_code ignored;
  fs::remove(path_ / kClaim, ignored);
}

void WorkFolder::remove() {
  std::error_code ignored;
  remove_units(path_);
  fs::remove(path_ / kFingerprint, ignored);
  release();  // last: killed in between, the next run sees that the output is its own
  fs::remove(path_ / kLock, ignored);
  fs::remove(path_, ignored);
}

// ---- FolderCheckpoint ---------------------------------------------------------------------------
FolderCheckpoint::FolderCheckpoint(const fs::path& folder, const json& fingerprint, Resume resume)
    : folder_(folder) {
  const fs::path path = folder_ / kFingerprint;
  if (resume == Resume::kRequire && !fs::exists(path)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("resume: no saved state in \"{}\"", folder_.string()));
  }
  if (fs::exists(path) && resume != Resume::kNever) {
    const json saved = read_json(path);
    if (saved != fingerprint) differs(saved, fingerprint);
    return;
  }
  remove_units(folder_);
  write_file_atomically(path, fingerprint.dump(1) + "\n");
}

fs::path FolderCheckpoint::unit_path(int unit) const {
  return folder_ / fmt::format("pass{}_unit{:04}.safetensors", pass_, unit);
}

void FolderCheckpoint::remember(const WeightMap& weights) {
  for (const auto& [id, tensor] : weights) digests_[id] = digest(tensor);
}

bool FolderCheckpoint::restore(Workspace& ws, int unit) {
  if (unit == 0) {
    ++pass_;
    rows_seen_ = ws.report.rows().size();
    remember(ws.weights);
  }
  const fs::path path = unit_path(unit);
  if (!fs::exists(path)) return false;
  const SafetensorsFile file = read_safetensors(path);
  try {
    const json state = json::parse(file.metadata.at("state"));
    for (const auto& [key, layout] : state.at("weights").items()) {
      const ValueId id = std::stoi(key);
      if (ws.weights.count(id) == 0)
        throw Error(ErrorCode::kCorruptFile, "checkpoint: unknown weight " + key,
                    "use --resume never to start again");
      ws.weights[id] = restore_weight(file.tensors.at("w" + key), layout);
      digests_[id] = digest(ws.weights[id]);
    }
    ws.plan = restore_plan(state.at("plan"), file.tensors);
    const json& rows = state.at("rows");
    for (size_t i = 0; i < rows.size(); ++i) {
      ws.report.add(
          {rows[i].at(0), rows[i].at(1), rows[i].at(2), file.tensors.at("rows").as<double>()[i]});
    }
  } catch (const json::exception& error) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("checkpoint: \"{}\": {}", path.string(), error.what()),
                "use --resume never");
  } catch (const std::out_of_range&) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("checkpoint: \"{}\": incomplete", path.string()), "use --resume never");
  }
  rows_seen_ = ws.report.rows().size();
  ++restored_;
  return true;
}

void FolderCheckpoint::save(const Workspace& ws, int unit) {
  std::map<std::string, Tensor> tensors;
  json state = {{"weights", json::object()}, {"rows", json::array()}};
  for (const auto& [id, tensor] : ws.weights) {
    std::string now = digest(tensor);
    if (digests_[id] == now) continue;
    digests_[id] = std::move(now);
    tensors[fmt::format("w{}", id)] = from_aten(tensor.detach());
    state["weights"][std::to_string(id)] = store_weight(tensor);
  }
  state["plan"] = store_plan(ws.plan, tensors);
  std::vector<double> values;
  for (; rows_seen_ < ws.report.rows().size(); ++rows_seen_) {
    const Measurement& row = ws.report.rows()[rows_seen_];
    state["rows"].push_back({row.stage, row.subject, row.metric});
    values.push_back(row.value);
  }
  tensors["rows"] = Tensor::of<double>({static_cast<int64_t>(values.size())}, values);
  std::vector<std::pair<std::string, const Tensor*>> list;
  for (const auto& [name, tensor] : tensors) list.emplace_back(name, &tensor);
  write_safetensors(unit_path(unit), {{"state", state.dump()}}, list, false);
}

}  // namespace repquant
