#pragma once
// ModelProto into Graph: names to values, scopes, inlining. Internal to load/onnx.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "repquant/load/onnx/rewrite.h"
#include "repquant/load/onnx/tensor.h"

namespace repquant::load {

class Importer {
 public:
  Importer(const onnx::ModelProto& model, TensorReader reader, const OnnxLimits& limits)
      : model_(model), reader_(std::move(reader)), limits_(limits) {}
  Graph run();

 private:
  using Opsets = std::map<std::string, int64_t>;
  using Nodes = google::protobuf::RepeatedPtrField<onnx::NodeProto>;

  // One name scope: the main graph, a branch of an If, or the body of a function.
  struct Scope {
    const Scope* parent = nullptr;                   // a branch sees its surroundings
    std::map<std::string, ValueId> names;
    std::map<std::string, ValueId> results;  // names whose value the caller has made already
    std::map<std::string, const onnx::AttributeProto*> arguments;  // attributes of a function call
    const Opsets* opsets = nullptr;
    std::string prefix;                              // of node names
    int depth = 0;
  };

  Opsets read_opsets(
      const google::protobuf::RepeatedPtrField<onnx::OperatorSetIdProto>& list) const;
  void check_model() const;
  void index_functions();
  void add_inputs(Scope& scope);
  void add_outputs(const Scope& scope);
  void add_initializers(Scope& scope, const onnx::GraphProto& graph);
  void declare_outputs(Scope& scope, const Nodes& nodes);
  void import_body(Scope& scope, const Nodes& nodes);
  void import_node(Scope& scope, const onnx::NodeProto& proto);
  void import_constant(Scope& scope, const onnx::NodeProto& proto, const std::string& subject);
  void import_if(Scope& scope, const onnx::NodeProto& proto, const std::string& subject);
  void import_call(Scope& scope, const onnx::NodeProto& proto, const onnx::FunctionProto& function,
                   const std::string& subject);
  void import_op(Scope& scope, const onnx::NodeProto& proto, const std::string& subject);
  void connect_results(const Scope& scope, const std::vector<std::string>& names,
                       const std::vector<ValueId>& targets, const std::string& subject);
  bool condition(ValueId id, const std::string& subject);
  void count_work(int64_t items);

  ValueId lookup(const Scope& scope, const std::string& name, const std::string& subject) const;
  std::optional<AttrValue> attribute(const Scope& scope, const onnx::AttributeProto& proto,
                                     const std::string& subject);
  void add_identity(const std::string& name, ValueId from, ValueId to);
  std::string describe(const Scope& scope, const onnx::NodeProto& proto) const;
  SymbolicShape shape_of(const onnx::TensorShapeProto& proto, const std::string& subject) const;

  const onnx::ModelProto& model_;
  TensorReader reader_;
  OnnxLimits limits_;
  Building building_;
  std::map<std::pair<std::string, std::string>, const onnx::FunctionProto*> functions_;
  Opsets opsets_;
  std::map<const onnx::FunctionProto*, Opsets> function_opsets_;
  std::unordered_set<ValueId> four_bit_;   // constants widened from 4-bit integers
  int64_t imported_nodes_ = 0;
  int evaluated_conditions_ = 0;
};

}  // namespace repquant::load
