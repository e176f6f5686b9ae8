#pragma once
// The demo transformer with images, labels and one artifact of it, made once a program.
#include <memory>
#include <string>
#include <vector>

#include "cli/exit_codes.h"
#include "cli/testing.h"

namespace repquant::cli::testing {

inline const std::string kTool = REPQUANT_TOOL;
inline const std::string kRun = REPQUANT_RUN;
inline const std::string kModel = std::string(REPQUANT_SOURCE) + "/models/demo_vit.onnx";

class Demo : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (shared_) return;
    shared_ = std::make_unique<Folder>();
    write_images(data(), 12, 1);
    write_images(other(), 6, 2);
    write_text(labels(), "0\n1\n2\n3\n4\n5\n");
    result_ = run(command(reference(), {"--json"}));
    ASSERT_EQ(result_.exit, 0) << result_.err;
  }
  static std::string data() { return shared_->file("data.npy"); }
  static std::string other() { return shared_->file("other.npy"); }
  static std::string labels() { return shared_->file("labels.txt"); }
  static std::string reference() { return shared_->file("reference.rq.safetensors"); }
  static const Ended& result() { return result_; }  // of the command that made `reference`
  static std::vector<std::string> command(const std::string& out,
                                          const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{kTool,  "quantize", kModel,          "-o",        out, "--data",
                                   data(), "--preset", "repquant_w4a4", "--samples", "8"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  static std::vector<std::string> eval(const std::string& model,
                                       const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{kTool, "eval", model, "--data", other(), "--labels", labels()};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

 private:
  inline static std::unique_ptr<Folder> shared_;
  inline static Ended result_;
};

}  // namespace repquant::cli::testing
