#include "repquant/graph/infer.h"

#include <fmt/format.h>

#include "repquant/graph/infer_context.h"

namespace repquant {
namespace {

constexpr size_t kMaxRank = 64;
constexpr size_t kMaxIntegers = 128;   // enough for any shape; keeps hostile graphs small

template <class T> std::vector<Element> read_elements(const Tensor& tensor) {
  std::vector<Element> elements;
  for (const T v : tensor.as<T>()) elements.push_back({true, static_cast<int64_t>(v), {}});
  return elements;
}

std::optional<IntTensor> integers_of(const Tensor& tensor) {
  if (tensor.rank() > 1 || tensor.size() > static_cast<int64_t>(kMaxIntegers)) return std::nullopt;
  IntTensor out;
  out.scalar = tensor.rank() == 0;
  switch (tensor.dtype()) {
    case DType::kI64: out.elements = read_elements<int64_t>(tensor); return out;
    case DType::kI32: out.elements = read_elements<int32_t>(tensor); return out;
    case DType::kBool: out.elements = read_elements<bool>(tensor); return out;
    default: return std::nullopt;
  }
}

void check_size(const InferContext& context, const SymbolicShape& shape) {
  if (shape.size() > kMaxRank)
    context.fail(fmt::format("at most {} dimensions, got {}", kMaxRank, shape.size()));
  int64_t count = 8;   // bytes an element, at most
  for (const Dim& dim : shape) {
    if (dim.known() && dim.size > 0 && __builtin_mul_overflow(count, dim.size, &count)) {
      context.fail("a shape that fits into 64 bits, got " + to_string(shape));
    }
  }
}

void infer_node(const Node& node, InferState& state) {
  InferContext context(node, state);
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (!node.inputs.empty() && context.has(0)) context.set_dtype(i, context.dtype(0));
  }
  const InferFunction function = infer_function(node.op);
  if (function == nullptr) return;
  try {
    function(context);
  } catch (const Error& error) {
    const std::string_view text = error.what();
    if (error.code() != ErrorCode::kCorruptFile || text.rfind("infer shapes:", 0) == 0) throw;
    throw Error(error.code(), fmt::format("infer shapes: node \"{}\" ({}): {}", node.name,
                                          name_of(node.op), text));
  }
}

InferState run(const Graph& graph) {
  InferState state(graph);
  for (const NodeId id : graph.order()) infer_node(graph.node(id), state);
  return state;
}

}  // namespace

// ---- elements
// ---------------------------------------------------------------------------------------

Element element_of(const Dim& dim) { return {dim.known(), dim.known() ? dim.size : 0, dim.symbol}; }

Dim dim_of(const Element& element) {
  if (element.known) return element.value >= 0 ? known_dim(element.value) : Dim{};
  return Dim{-1, element.symbol};
}

std::optional<DType> dtype_of_onnx(int64_t type) {
  switch (type) {
    case 1: case 10: case 16: case 17: case 18: case 19: case 20: return DType::kF32;
    case 2: return DType::kU8;
    case 3: return DType::kI8;
    case 4: return DType::kU16;
    case 5: return DType::kI16;
    case 6: return DType::kI32;
    case 7: return DType::kI64;
    case 9: return DType::kBool;
    case 11: return DType::kF64;
    case 12: return DType::kU32;
    case 13: return DType::kU64;
    default: return std::nullopt;
  }
}

// ---- context
// ----------------------------------------------------------------------------------------

InferState::InferState(const Graph& g)
    : graph(g), shapes(g.value_count()), dtypes(g.value_count()) {
  for (ValueId id = 0; id < static_cast<ValueId>(g.value_count()); ++id) {
    const Value& value = g.value(id);
    const auto index = static_cast<size_t>(id);
    dtypes[index] = value.dtype;
    if (value.constant) {
      dtypes[index] = value.constant->dtype();
      shapes[index].emplace();
      for (const int64_t size : value.constant->shape()) shapes[index]->push_back(known_dim(size));
      if (auto known = integers_of(*value.constant)) integers.emplace(id, std::move(*known));
    }
  }
  for (const ValueId id : g.inputs) shapes[static_cast<size_t>(id)] = g.value(id).shape;
}

const SymbolicShape* InferContext::shape(size_t input) const {
  if (!has(input)) return nullptr;
  const auto& found = state_.shapes[static_cast<size_t>(node_.inputs[input])];
  return found ? &*found : nullptr;
}

DType InferContext::dtype(size_t input) const {
  return has(input) ? state_.dtypes[static_cast<size_t>(node_.inputs[input])] : DType::kF32;
}

const IntTensor* InferContext::integers(size_t input) const {
  if (!has(input)) return nullptr;
  const auto it = state_.integers.find(node_.inputs[input]);
  return it == state_.integers.end() ? nullptr : &it->second;
}

std::optional<std::vector<int64_t>> InferContext::numbers(size_t input) const {
  const IntTensor* found = integers(input);
  if (!found) return std::nullopt;
  std::vector<int64_t> values;
  for (const Element& e : found->elements) {
    if (!e.known) return std::nullopt;
    values.push_back(e.value);
  }
  return values;
}

const Tensor* InferContext::constant(size_t input) const {
  if (!has(input) || !state_.graph.is_constant(node_.inputs[input])) return nullptr;
  return &*state_.graph.value(node_.inputs[input]).constant;
}

void InferContext::set_dtype(size_t output, DType dtype) {
  if (output < node_.outputs.size() && node_.outputs[output] != kNoValue) {
    state_.dtypes[static_cast<size_t>(node_.outputs[output])] = dtype;
  }
}

void InferContext::set_shape(size_t output, SymbolicShape shape) {
  if (output >= node_.outputs.size() || node_.outputs[output] == kNoValue) return;
  check_size(*this, shape);
  state_.shapes[static_cast<size_t>(node_.outputs[output])] = std::move(shape);
}

void InferContext::set_integers(size_t output, IntTensor integers) {
  if (output >= node_.outputs.size() || node_.outputs[output] == kNoValue) return;
  if (integers.elements.size() > kMaxIntegers) return;
  state_.integers[node_.outputs[output]] = std::move(integers);
}

int64_t InferContext::axis(int64_t value, size_t rank) const {
  const auto size = static_cast<int64_t>(rank);
  if (value < -size || value >= size)
    fail(fmt::format("an axis of {} dimensions, got {}", size, value));
  return value < 0 ? value + size : value;
}

SymbolicShape InferContext::broadcast_inputs(size_t first, size_t count, bool& known) const {
  SymbolicShape result;
  known = true;
  for (size_t i = first; i < first + count; ++i) {
    const SymbolicShape* next = shape(i);
    if (next == nullptr) {
      known = false;
      return {};
    }
    if (next->size() > result.size())
      result.insert(result.begin(), next->size() - result.size(), known_dim(1));
    const size_t offset = result.size() - next->size();
    for (size_t d = 0; d < next->size(); ++d) {
      const auto both = broadcast(result[offset + d], (*next)[d]);
      if (!both) {
        fail(fmt::format("shapes that broadcast, got {} and {}", to_string(*shape(first)),
                         to_string(*next)));
      }
      result[offset + d] = *both;
    }
  }
  return result;
}

void InferContext::fail(const std::string& what) const {
  throw Error(ErrorCode::kCorruptFile, fmt::format("infer shapes: node \"{}\" ({}): expected {}",
                                                   node_.name, name_of(node_.op), what));
}

// ---- public
// -----------------------------------------------------------------------------------------

void infer_shapes(Graph& graph) {
  const InferState state = run(graph);
  for (const NodeId id : graph.order()) {
    for (const ValueId output : graph.node(id).outputs) {
      if (output == kNoValue) continue;
      graph.value(output).shape = state.shapes[static_cast<size_t>(output)];
      graph.value(output).dtype = state.dtypes[static_cast<size_t>(output)];
    }
  }
}

std::optional<std::vector<int64_t>> known_integers(const Graph& graph, ValueId id) {
  const InferState state = run(graph);
  const auto it = state.integers.find(id);
  if (it == state.integers.end()) return std::nullopt;
  std::vector<int64_t> values;
  for (const Element& e : it->second.elements) {
    if (!e.known) return std::nullopt;
    values.push_back(e.value);
  }
  return values;
}

}  // namespace repquant
