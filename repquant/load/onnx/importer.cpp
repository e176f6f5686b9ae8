#include "repquant/load/onnx/importer.h"

#include <algorithm>

#include <fmt/format.h>

#include "repquant/graph/infer.h"

namespace repquant::load {
namespace {

constexpr int kMaxDepth = 32;               // of branches and functions in each other
constexpr int kMaxConditions = 256;         // that need shape inference to be known

std::string main_domain(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

// Ops on sequences and optional values, which are not tensors.
bool is_container_op(const std::string& type) {
  if (op_from_onnx(type)) return false;   // ReverseSequence reverses tensors
  return type.find("Sequence") != std::string::npos || type.rfind("Optional", 0) == 0;
}

std::string nested_prefix(const std::string& outer, const std::string& name) {
  constexpr size_t kMaxPrefix = 120;
  return outer.size() + name.size() > kMaxPrefix ? outer : outer + name + "/";
}

}  // namespace

// ---- the model
// --------------------------------------------------------------------------------------

Importer::Opsets Importer::read_opsets(
    const google::protobuf::RepeatedPtrField<onnx::OperatorSetIdProto>& list) const {
  Opsets opsets;
  for (const auto& entry : list) {
    auto& version = opsets[main_domain(entry.domain())];
    version = std::max(version, entry.version());
  }
  if (const auto it = opsets.find(""); it != opsets.end()) {
    if (it->second < kOldestOpset || it->second > kReadableOpset) {
      unsupported(
          fmt::format("model: expected opset {} to {}, got {}", kOldestOpset, kNewestOpset,
                      it->second),
          "export the model again with opset 20, or convert it with onnx.version_converter");
    }
  }
  return opsets;
}

void Importer::check_model() const {
  if (!model_.has_graph() || !model_.has_ir_version()) {
    corrupt("expected an ONNX model, got a file without a graph", "is this an .onnx file?");
  }
  if (model_.ir_version() < 3 || model_.ir_version() > 14) {
    unsupported(fmt::format("model: expected IR version 3 to 14, got {}", model_.ir_version()));
  }
  if (model_.training_info_size() > 0) {
    unsupported("model: expected inference only, got training information",
                "export the model in eval mode");
  }
}

void Importer::index_functions() {
  for (const auto& function : model_.functions()) {
    const std::pair key(main_domain(function.domain()), function.name());
    if (!functions_.emplace(key, &function).second) {
      unsupported(fmt::format("function {}: expected one definition, got overloads",
                              in_quotes(function.name())));
    }
  }
}

Graph Importer::run() {
  check_model();
  opsets_ = read_opsets(model_.opset_import());
  if (opsets_.empty()) corrupt("model: expected an opset, got none");
  index_functions();
  building_.graph.name = model_.graph().name();
  building_.graph.opset = opsets_.count("") ? opsets_.at("") : 0;
  Scope scope;
  scope.opsets = &opsets_;
  add_inputs(scope);
  add_initializers(scope, model_.graph());
  import_body(scope, model_.graph().node());
  add_outputs(scope);
  building_.graph.sort();
  if (!building_.waiting.empty()) {
    infer_shapes(building_.graph);
    for (const auto& rewrite : building_.waiting) rewrite(building_);
    building_.graph.sort();
  }
  building_.graph.verify();
  return std::move(building_.graph);
}

SymbolicShape Importer::shape_of(const onnx::TensorShapeProto& proto,
                                 const std::string& subject) const {
  SymbolicShape shape;
  if (proto.dim_size() > 32) corrupt(subject + ": expected at most 32 dimensions, got more");
  for (const auto& dim : proto.dim()) {
    Dim out;
    if (dim.value_case() == onnx::TensorShapeProto::Dimension::kDimValue) {
      out.size = std::max<int64_t>(dim.dim_value(), -1);
    } else if (dim.value_case() == onnx::TensorShapeProto::Dimension::kDimParam) {
      out.symbol = symbol_from_file(dim.dim_param());
    }
    shape.push_back(out);
  }
  Shape sizes;
  for (const Dim& dim : shape) sizes.push_back(dim.known() ? dim.size : 1);
  int64_t count = 1;
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(count, size, &count)) {
      corrupt(subject + ": expected a shape that fits into 64 bits, got " + to_string(shape));
    }
  }
  return shape;
}

void Importer::add_inputs(Scope& scope) {
  std::unordered_set<std::string> initialized;
  for (const auto& tensor : model_.graph().initializer()) initialized.insert(tensor.name());
  for (const auto& input : model_.graph().input()) {
    if (initialized.count(input.name())) continue;   // IR 3: initializers are listed as inputs too
    const std::string subject = "graph input " + in_quotes(input.name());
    if (input.type().value_case() != onnx::TypeProto::kTensorType) {
      unsupported(subject + ": expected a tensor, got a sequence, map or optional value");
    }
    const auto& type = input.type().tensor_type();
    const ValueId id = building_.fresh_value(input.name());
    Value& value = building_.graph.value(id);
    value.dtype = graph_type(type.elem_type(), subject);
    if (type.has_shape()) value.shape = shape_of(type.shape(), subject);
    if (input.name().empty() || !scope.names.emplace(input.name(), id).second) {
      corrupt(subject + ": expected a name used once, got it twice");
    }
    building_.graph.inputs.push_back(id);
  }
}

void Importer::add_outputs(const Scope& scope) {
  if (model_.graph().output_size() == 0) corrupt("graph: expected outputs, got none");
  for (const auto& output : model_.graph().output()) {
    const std::string subject = "graph output " + in_quotes(output.name());
    const ValueId id = lookup(scope, output.name(), subject);
    if (id == kNoValue) corrupt(subject + ": expected a value of the graph, got none");
    building_.graph.outputs.push_back(id);
  }
}

void Importer::add_initializers(Scope& scope, const onnx::GraphProto& graph) {
  if (graph.sparse_initializer_size() > 0) {
    unsupported("tensor " + in_quotes(graph.sparse_initializer(0).values().name()) +
                    ": expected a dense tensor, got a sparse one");
  }
  for (const auto& proto : graph.initializer()) {
    const std::string subject = "tensor " + in_quotes(proto.name());
    if (proto.name().empty()) corrupt("tensor: expected a name, got none");
    Tensor tensor = reader_.read(proto, subject, true);
    const ValueId id = building_.fresh_value(proto.name());
    Value& value = building_.graph.value(id);
    value.dtype = tensor.dtype();
    value.shape.emplace();
    for (const int64_t size : tensor.shape()) value.shape->push_back({size, {}});
    value.constant = std::move(tensor);
    if (proto.data_type() == kUint4 || proto.data_type() == kInt4) four_bit_.insert(id);
    if (!scope.names.emplace(proto.name(), id).second) {
      corrupt(subject + ": expected a name used once, got it twice");
    }
  }
}

// ---- nodes
// ------------------------------------------------------------------------------------------

std::string Importer::describe(const Scope& scope, const onnx::NodeProto& proto) const {
  const auto it = scope.opsets->find(main_domain(proto.domain()));
  const std::string name = scope.prefix + (proto.name().empty() && proto.output_size() > 0
                                               ? proto.output(0) : proto.name());
  return fmt::format("node {} ({}, opset {})", in_quotes(name), proto.op_type(),
                     it == scope.opsets->end() ? "unknown" : std::to_string(it->second));
}

ValueId Importer::lookup(const Scope& scope, const std::string& name,
                         const std::string& subject) const {
  if (name.empty()) return kNoValue;
  for (const Scope* at = &scope; at != nullptr; at = at->parent) {
    if (const auto it = at->names.find(name); it != at->names.end()) return it->second;
  }
  corrupt(fmt::format("{}: input {}: expected a value defined in the graph, got none", subject,
                      in_quotes(name)));
}

// All outputs first: files whose nodes are out of order import too, and Graph::sort finds cycles.
void Importer::declare_outputs(Scope& scope, const Nodes& nodes) {
  for (const auto& node : nodes) {
    for (const auto& name : node.output()) {
      if (name.empty()) continue;
      const auto preset = scope.results.find(name);
      const ValueId id = preset != scope.results.end() ? preset->second
                                                       : building_.fresh_value(scope.prefix + name);
      if (!scope.names.emplace(name, id).second) {
        corrupt(fmt::format("{}: output {}: expected a name used once, got it twice",
                            describe(scope, node), in_quotes(name)));
      }
    }
  }
}

// Inlining multiplies: functions that call functions twice grow exponentially.
void Importer::count_work(int64_t items) {
  imported_nodes_ += items;
  if (imported_nodes_ > limits_.nodes) {
    throw Error(
        ErrorCode::kResourceExhausted,
        fmt::format("load onnx: graph: expected at most {} nodes, got more", limits_.nodes));
  }
}

void Importer::import_body(Scope& scope, const Nodes& nodes) {
  if (scope.depth > kMaxDepth) {
    corrupt(fmt::format("graph: expected at most {} nested branches and functions, got more",
                        kMaxDepth));
  }
  count_work(nodes.size());
  declare_outputs(scope, nodes);
  for (const auto& node : nodes) import_node(scope, node);
}

void Importer::import_node(Scope& scope, const onnx::NodeProto& proto) {
  const std::string subject = describe(scope, proto);
  const std::string domain = main_domain(proto.domain());
  if (const auto it = functions_.find({domain, proto.op_type()}); it != functions_.end()) {
    return import_call(scope, proto, *it->second, subject);
  }
  if (!domain.empty()) {
    unsupported(
        fmt::format(
            "{}: expected an op of the main ONNX domain or a function of the model, got domain {}",
            subject, in_quotes(domain)),
        "supported: domain ai.onnx, opsets 9 to 23; export without custom or contributed ops");
  }
  if (!scope.opsets->count("")) corrupt(subject + ": expected an opset of its domain, got none");
  const std::string& type = proto.op_type();
  if (type == "Constant") return import_constant(scope, proto, subject);
  if (type == "If") return import_if(scope, proto, subject);
  if (type == "Loop" || type == "Scan") {
    unsupported(fmt::format("{}: expected a graph without loops, got \"{}\"", subject, type),
                "supported: If with a condition known at load, model-local functions; unroll loops "
                "at export");
  }
  if (is_container_op(type)) {
    unsupported(
        fmt::format("{}: expected tensors only, got the op \"{}\" on sequences or optional values",
                    subject, type));
  }
  import_op(scope, proto, subject);
}

void Importer::import_op(Scope& scope, const onnx::NodeProto& proto, const std::string& subject) {
  Draft draft;
  draft.type = proto.op_type();
  draft.opset = scope.opsets->at("");
  draft.subject = subject;
  check_op_version(draft.type, draft.opset, subject);
  draft.node.name = proto.name().empty() ? std::string() : scope.prefix + proto.name();
  for (const auto& name : proto.input()) {
    const ValueId id = lookup(scope, name, subject);
    if (four_bit_.count(id) && draft.type != "DequantizeLinear") {
      unsupported(fmt::format(
          "{}: input {}: expected 4-bit integers only in DequantizeLinear, got them here", subject,
          in_quotes(name)));
    }
    draft.node.inputs.push_back(id);
  }
  for (const auto& name : proto.output()) {
    draft.node.outputs.push_back(name.empty() ? kNoValue : lookup(scope, name, subject));
  }
  for (const auto& item : proto.attribute()) {
    if (auto value = attribute(scope, item, subject))
      draft.node.attrs.set(item.name(), std::move(*value));
  }
  add_rewritten(building_, std::move(draft));
}

void Importer::add_identity(const std::string& name, ValueId from, ValueId to) {
  Node node;
  node.op = OpKind::kIdentity;
  node.name = building_.unique_node(name);
  node.inputs = {from};
  node.outputs = {to};
  building_.graph.add_node(std::move(node));
}

// ---- constants and attributes
// -----------------------------------------------------------------------

std::optional<AttrValue> Importer::attribute(const Scope& scope, const onnx::AttributeProto& given,
                                             const std::string& subject) {
  const onnx::AttributeProto* proto = &given;
  if (!given.ref_attr_name().empty()) {
    const auto it = scope.arguments.find(given.ref_attr_name());
    if (it == scope.arguments.end()) return std::nullopt;   // the op's own default
    proto = it->second;
  }
  using Type = onnx::AttributeProto;
  auto type = proto->type();
  if (type == Type::UNDEFINED) {   // IR 1 and 2 style, still met
    type = proto->has_f() ? Type::FLOAT : proto->has_i() ? Type::INT : proto->has_s() ? Type::STRING
           : proto->has_t() ? Type::TENSOR : proto->floats_size() ? Type::FLOATS : Type::INTS;
  }
  reader_.charge(
      proto->s().size() + 8 * static_cast<uint64_t>(proto->floats_size() + proto->ints_size()),
      subject);
  switch (type) {
    case Type::FLOAT: return AttrValue(proto->f());
    case Type::INT: return AttrValue(proto->i());
    case Type::STRING: return AttrValue(proto->s());
    case Type::FLOATS:
      return AttrValue(std::vector<float>(proto->floats().begin(), proto->floats().end()));
    case Type::INTS:
      return AttrValue(std::vector<int64_t>(proto->ints().begin(), proto->ints().end()));
    case Type::TENSOR:
      return AttrValue(
          reader_.read(proto->t(), subject + ": attribute " + in_quotes(given.name()), false));
    default:
      unsupported(fmt::format("{}: attribute {}: expected numbers, a text or a tensor, got kind {}",
                              subject, in_quotes(given.name()), static_cast<int>(type)));
  }
}

void Importer::import_constant(Scope& scope, const onnx::NodeProto& proto,
                               const std::string& subject) {
  if (proto.output_size() != 1 || proto.attribute_size() != 1) {
    corrupt(subject + ": expected one attribute and one output");
  }
  const std::string& kind = proto.attribute(0).name();
  if (kind != "value" && kind != "value_float" && kind != "value_floats" && kind != "value_int" &&
      kind != "value_ints") {
    unsupported(fmt::format("{}: expected a dense tensor of numbers, got attribute {}", subject,
                            in_quotes(kind)));
  }
  const auto given = attribute(scope, proto.attribute(0), subject);
  if (!given) corrupt(subject + ": expected a value, got none");
  struct ToTensor {
    Tensor operator()(int64_t v) const { return Tensor::scalar(v); }
    Tensor operator()(float v) const { return Tensor::scalar(v); }
    Tensor operator()(const std::vector<int64_t>& v) const {
      return Tensor::of<int64_t>({static_cast<int64_t>(v.size())}, v);
    }
    Tensor operator()(const std::vector<float>& v) const {
      return Tensor::of<float>({static_cast<int64_t>(v.size())}, v);
    }
    Tensor operator()(const Tensor& v) const { return v; }
    Tensor operator()(const std::string&) const {
      throw Error(ErrorCode::kUnsupported, "load onnx: expected a constant of numbers, got a text");
    }
  };
  Tensor tensor = std::visit(ToTensor{}, *given);
  const ValueId id = lookup(scope, proto.output(0), subject);
  Value& value = building_.graph.value(id);
  value.dtype = tensor.dtype();
  value.shape.emplace();
  for (const int64_t size : tensor.shape()) value.shape->push_back({size, {}});
  value.constant = std::move(tensor);
  const auto& attr = proto.attribute(0);
  if (attr.has_t() && (attr.t().data_type() == kUint4 || attr.t().data_type() == kInt4))
    four_bit_.insert(id);
}

// ---- inlining
// ---------------------------------------------------------------------------------------

void Importer::connect_results(const Scope& scope, const std::vector<std::string>& names,
                               const std::vector<ValueId>& targets, const std::string& subject) {
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] == kNoValue) continue;
    const ValueId from = lookup(scope, names[i], subject);
    if (from == targets[i]) continue;
    if (from == kNoValue) corrupt(subject + ": expected a result, got none");
    add_identity(scope.prefix + "result", from, targets[i]);
  }
}

bool Importer::condition(ValueId id, const std::string& subject) {
  if (id != kNoValue) {
    const auto& constant = building_.graph.value(id).constant;
    if (constant && constant->dtype() == DType::kBool && constant->size() == 1) {
      return constant->as<bool>()[0];
    }
    // Exporters guard a Squeeze with "is this dimension 1": known once shapes are.
    if (!constant && ++evaluated_conditions_ <= kMaxConditions) {
      const auto known = known_integers(building_.graph, id);
      if (known && known->size() == 1) return known->front() != 0;
    }
  }
  unsupported(subject + ": expected a condition known at load, got one that depends on the input",
              "supported: If with a constant condition; export with fixed control flow");
}

void Importer::import_if(Scope& scope, const onnx::NodeProto& proto, const std::string& subject) {
  if (proto.input_size() != 1) corrupt(subject + ": expected one input");
  const bool taken = condition(lookup(scope, proto.input(0), subject), subject);
  const onnx::GraphProto* branch = nullptr;
  for (const auto& attr : proto.attribute()) {
    if (attr.name() == (taken ? "then_branch" : "else_branch") && attr.has_g()) branch = &attr.g();
  }
  if (branch == nullptr || branch->output_size() != proto.output_size()) {
    corrupt(subject + ": expected a branch with as many outputs as the node");
  }
  Scope inner;
  inner.parent = &scope;
  inner.arguments = scope.arguments;
  inner.opsets = scope.opsets;
  inner.depth = scope.depth + 1;
  inner.prefix = nested_prefix(scope.prefix, proto.name().empty() ? "if" : proto.name());
  std::vector<std::string> names;
  std::vector<ValueId> targets;
  for (int i = 0; i < proto.output_size(); ++i) {
    const std::string& name = proto.output(i);
    targets.push_back(name.empty() ? kNoValue : lookup(scope, name, subject));
    names.push_back(branch->output(i).name());
    if (targets.back() != kNoValue) inner.results.emplace(names.back(), targets.back());
  }
  add_initializers(inner, *branch);
  import_body(inner, branch->node());
  connect_results(inner, names, targets, subject);
}

void Importer::import_call(Scope& scope, const onnx::NodeProto& proto,
                           const onnx::FunctionProto& function, const std::string& subject) {
  if (proto.input_size() > function.input_size() || proto.output_size() > function.output_size()) {
    corrupt(fmt::format("{}: expected at most {} inputs and {} outputs, got {} and {}", subject,
                        function.input_size(), function.output_size(), proto.input_size(),
                        proto.output_size()));
  }
  // Field 11, attributes with defaults, is newer than the message classes.
  const auto& unknown = function.unknown_fields();
  std::vector<std::unique_ptr<onnx::AttributeProto>> defaults;
  Scope inner;
  for (int i = 0; i < unknown.field_count(); ++i) {
    if (unknown.field(i).number() != 11 ||
        unknown.field(i).type() != google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED)
      continue;
    auto attr = std::make_unique<onnx::AttributeProto>();
    if (!attr->ParseFromString(unknown.field(i).length_delimited()))
      corrupt(subject + ": damaged function");
    inner.arguments[attr->name()] = attr.get();
    defaults.push_back(std::move(attr));
  }
  for (const auto& attr : proto.attribute()) {
    const onnx::AttributeProto* actual = &attr;
    if (!attr.ref_attr_name().empty()) {
      const auto it = scope.arguments.find(attr.ref_attr_name());
      if (it == scope.arguments.end()) continue;
      actual = it->second;
    }
    inner.arguments[attr.name()] = actual;
  }
  count_work(function.input_size() + function.output_size() + proto.attribute_size());
  if (!function_opsets_.count(&function))
    function_opsets_[&function] = read_opsets(function.opset_import());
  inner.opsets = &function_opsets_[&function];
  inner.depth = scope.depth + 1;
  inner.prefix = nested_prefix(scope.prefix, proto.name().empty() ? function.name() : proto.name());
  for (int i = 0; i < function.input_size(); ++i) {
    inner.names.emplace(function.input(i),
                        i < proto.input_size() ? lookup(scope, proto.input(i), subject) : kNoValue);
  }
  std::vector<std::string> names;
  std::vector<ValueId> targets;
  for (int i = 0; i < proto.output_size(); ++i) {
    const std::string& name = proto.output(i);
    targets.push_back(name.empty() ? kNoValue : lookup(scope, name, subject));
    names.push_back(function.output(i));
    if (targets.back() != kNoValue) inner.results.emplace(names.back(), targets.back());
  }
  import_body(inner, function.node());
  connect_results(inner, names, targets, subject);
}

}  // namespace repquant::load
