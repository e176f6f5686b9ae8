#pragma once
// Runs the programs as people do: as processes.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "repquant/data/npy.h"
#include "repquant/data/subset.h"

namespace repquant::cli::testing {

namespace fs = std::filesystem;

struct Ended {
  int exit = -1;  // 128 + signal when killed
  std::string out, err;
  double cpu_seconds = 0;
  nlohmann::json json() const { return nlohmann::json::parse(out, nullptr, false); }
};

// A running child; `limit_bytes`: largest file it may write, 0: any.
class Process {
 public:
  explicit Process(const std::vector<std::string>& words, uint64_t limit_bytes = 0) {
    int out[2], err[2];
    if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out[1], STDOUT_FILENO);
      ::dup2(err[1], STDERR_FILENO);
      if (limit_bytes > 0) {
        const struct rlimit limit { limit_bytes, limit_bytes };
        ::setrlimit(RLIMIT_FSIZE, &limit);
      }
      std::vector<char*> arguments;
      for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
      arguments.push_back(nullptr);
      ::execv(arguments[0], arguments.data());
      ::_exit(126);
    }
    ::close(out[1]);
    ::close(err[1]);
    out_ = out[0];
    err_ = err[0];
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (pid_ > 0) wait();
  }

  void send(int number) const { ::kill(pid_, number); }
  // Reads until standard error holds `text` or has ended; false then.
  bool wait_for(const std::string& text) {
    while (ended_.err.find(text) == std::string::npos) {
      if (!read_some()) return false;
    }
    return true;
  }
  const Ended& wait() {
    while (read_some()) {
    }
    int status = 0;
    struct rusage usage {};
    ::wait4(pid_, &status, 0, &usage);
    pid_ = -1;
    ended_.exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    ended_.cpu_seconds = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    return ended_;
  }

 private:
  bool drain(int& fd, std::string& into) {
    char buffer[65536];
    const ssize_t got = ::read(fd, buffer, sizeof(buffer));
    if (got > 0) {
      into.append(buffer, static_cast<size_t>(got));
      return true;
    }
    ::close(fd);
    fd = -1;
    return false;
  }
  bool read_some() {
    if (out_ < 0 && err_ < 0) return false;
    struct pollfd fds[2] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};
    ::poll(fds, 2, -1);
    if (out_ >= 0 && fds[0].revents != 0) drain(out_, ended_.out);
    if (err_ >= 0 && fds[1].revents != 0) drain(err_, ended_.err);
    return true;
  }

  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
  Ended ended_;
};

inline Ended run(const std::vector<std::string>& words, uint64_t limit_bytes = 0) {
  return Process(words, limit_bytes).wait();
}

class Folder {
 public:
  Folder() {
    std::string name = fs::temp_directory_path() / "repquant_cli_XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(path_))
      found.push_back(entry.path().filename());
    return found;
  }

 private:
  fs::path path_;
};

inline std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_text(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// f32 [count, 1, 28, 28], blobs of varied brightness.
inline void write_images(const std::string& path, int64_t count, uint64_t seed) {
  Tensor images(DType::kF32, {count, 1, 28, 28});
  Random random(seed);
  for (float& x : images.as<float>()) x = static_cast<float>(random.below(4000)) / 1000.0f - 1.0f;
  write_npy(path, std::as_const(images).view());
}

// Three lines at most, "error: " first, lower case behind it, no trace.
inline void expect_message(const Ended& ended, const std::string& part) {
  const size_t at = ended.err.find("error: ");
  ASSERT_NE(at, std::string::npos) << ended.err;
  const std::string message = ended.err.substr(at);
  EXPECT_LE(std::count(message.begin(), message.end(), '\n'), 3) << message;
  EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(message.find('!'), std::string::npos) << message;
  EXPECT_EQ(ended.out, "");
}

// The subset of JSON Schema that docs/schema uses: type, required, properties, items, enum.
inline std::string mismatch(const nlohmann::json& value, const nlohmann::json& schema,
                            const std::string& at = "") {
  if (schema.contains("type")) {
    const std::vector<std::string> types =
        schema["type"].is_array() ? schema["type"].get<std::vector<std::string>>()
                                  : std::vector<std::string>{schema["type"].get<std::string>()};
    bool fits = false;
    for (const std::string& type : types) {
      fits = fits || (type == "object" && value.is_object()) ||
             (type == "array" && value.is_array()) || (type == "string" && value.is_string()) ||
             (type == "number" && value.is_number()) ||
             (type == "integer" && value.is_number_integer()) ||
             (type == "boolean" && value.is_boolean()) || (type == "null" && value.is_null());
    }
    if (!fits) return at + ": wrong type: " + value.dump().substr(0, 80);
  }
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end()) {
    return at + ": not allowed: " + value.dump();
  }
  const nlohmann::json required = schema.value("required", nlohmann::json::array());
  const nlohmann::json properties = schema.value("properties", nlohmann::json::object());
  for (const auto& key : required) {
    if (!value.contains(key.get<std::string>())) return at + ": missing " + key.get<std::string>();
  }
  for (const auto& [key, inner] : properties.items()) {
    if (!value.is_object() || !value.contains(key)) continue;
    if (const std::string found = mismatch(value[key], inner, at + "/" + key); !found.empty())
      return found;
  }
  if (schema.contains("items") && value.is_array()) {
    for (const auto& item : value) {
      if (const std::string found = mismatch(item, schema["items"], at + "/-"); !found.empty())
        return found;
    }
  }
  return "";
}

inline void expect_schema(const Ended& ended, const std::string& verb) {
  const nlohmann::json document = ended.json();
  ASSERT_TRUE(document.is_object()) << ended.out.substr(0, 400) << ended.err;
  const fs::path folder = fs::path(REPQUANT_SOURCE) / "docs" / "schema";
  const auto schema = [&](const std::string& name) {
    return nlohmann::json::parse(read_text(folder / (name + ".json")));
  };
  EXPECT_EQ(mismatch(document, schema("envelope")), "");
  EXPECT_EQ(document["verb"], verb);
  // An answer that is "no" (a gate, a difference) comes with its result.
  if (document["ok"] == true || !document["result"].empty()) {
    EXPECT_EQ(mismatch(document["result"], schema(verb)), "");
  }
}

}  // namespace repquant::cli::testing
