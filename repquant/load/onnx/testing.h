#pragma once
// Shorthand for tests that build ONNX files.
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <onnx/onnx_pb.h>

#include "repquant/core/error.h"
#include "repquant/load/onnx/onnx.h"

namespace repquant::onnx_testing {

struct ModelBuilder {
  onnx::ModelProto model;

  explicit ModelBuilder(int64_t opset = 17) {
    model.set_ir_version(8);
    model.add_opset_import()->set_version(opset);
    model.mutable_graph()->set_name("test");
  }
  onnx::GraphProto& graph() { return *model.mutable_graph(); }

  static void describe(onnx::ValueInfoProto& info, const std::string& name,
                       const std::vector<int64_t>& shape, int type) {
    info.set_name(name);
    auto& tensor = *info.mutable_type()->mutable_tensor_type();
    tensor.set_elem_type(type);
    for (const int64_t size : shape) {
      if (size < 0) tensor.mutable_shape()->add_dim()->set_dim_param("n");
      else tensor.mutable_shape()->add_dim()->set_dim_value(size);
    }
  }
  void input(const std::string& name, const std::vector<int64_t>& shape,
             int type = onnx::TensorProto::FLOAT) {
    describe(*graph().add_input(), name, shape, type);
  }
  void output(const std::string& name) {
    describe(*graph().add_output(), name, {}, onnx::TensorProto::FLOAT);
  }

  static void fill(onnx::TensorProto& tensor, const std::string& name,
                   const std::vector<int64_t>& shape, int type) {
    tensor.set_name(name);
    tensor.set_data_type(type);
    for (const int64_t size : shape) tensor.add_dims(size);
  }
  onnx::TensorProto& tensor(const std::string& name, const std::vector<int64_t>& shape, int type) {
    auto& made = *graph().add_initializer();
    fill(made, name, shape, type);
    return made;
  }
  void floats(const std::string& name, const std::vector<int64_t>& shape,
              const std::vector<float>& values) {
    auto& made = tensor(name, shape, onnx::TensorProto::FLOAT);
    for (const float v : values) made.add_float_data(v);
  }
  void integers(const std::string& name, const std::vector<int64_t>& values) {
    auto& made = tensor(name, {static_cast<int64_t>(values.size())}, onnx::TensorProto::INT64);
    for (const int64_t v : values) made.add_int64_data(v);
  }

  static onnx::NodeProto& set(onnx::NodeProto& node, const std::string& type,
                              const std::vector<std::string>& inputs,
                              const std::vector<std::string>& outputs) {
    node.set_op_type(type);
    for (const auto& name : inputs) node.add_input(name);
    for (const auto& name : outputs) node.add_output(name);
    return node;
  }
  onnx::NodeProto& node(const std::string& type, const std::vector<std::string>& inputs,
                        const std::vector<std::string>& outputs) {
    return set(*graph().add_node(), type, inputs, outputs);
  }

  std::string bytes() const { return model.SerializeAsString(); }
  Graph parse(const std::filesystem::path& folder = {}, const OnnxLimits& limits = {}) const {
    const std::string text = bytes();
    return parse_onnx(std::as_bytes(std::span(text)), folder, "test.onnx", limits);
  }
};

inline onnx::AttributeProto& attribute(onnx::NodeProto& node, const std::string& name,
                                       onnx::AttributeProto::AttributeType type) {
  auto& made = *node.add_attribute();
  made.set_name(name);
  made.set_type(type);
  return made;
}
inline void set_ints(onnx::NodeProto& node, const std::string& name,
                     const std::vector<int64_t>& values) {
  auto& made = attribute(node, name, onnx::AttributeProto::INTS);
  for (const int64_t v : values) made.add_ints(v);
}
inline void set_int(onnx::NodeProto& node, const std::string& name, int64_t value) {
  attribute(node, name, onnx::AttributeProto::INT).set_i(value);
}
inline void set_float(onnx::NodeProto& node, const std::string& name, float value) {
  attribute(node, name, onnx::AttributeProto::FLOAT).set_f(value);
}
inline void set_text(onnx::NodeProto& node, const std::string& name, const std::string& value) {
  attribute(node, name, onnx::AttributeProto::STRING).set_s(value);
}

// "code: message", or "no error".
inline std::string failure(const std::function<void()>& action) {
  static constexpr const char* kCodes[] = {"argument",  "corrupt",  "unsupported", "missing",
                                           "exhausted", "internal", "verify"};
  try {
    action();
  } catch (const Error& error) {
    return std::string(kCodes[static_cast<int>(error.code())]).append(": ").append(error.what());
  }
  return "no error";
}

}  // namespace repquant::onnx_testing
