#include "repquant/reparameterize/rotate.h"

#include <map>
#include <set>

#include <fmt/format.h>

#include "repquant/reparameterize/hadamard.h"
#include "repquant/reparameterize/output_probe.h"

namespace repquant::reparameterize {
namespace {

// The residual stream as a set of values, each with the axis that holds the channels.
struct Stream {
  std::map<ValueId, int64_t> axis;     // data values and constants of the stream
  std::vector<NodeId> linears, convs;  // writers
  std::vector<ValueId> constants;      // writers
  std::set<NodeId> norms;              // readers
  int64_t channels = -1;
};

class StreamFinder {
 public:
  explicit StreamFinder(const Workspace& ws) : ws_(ws), graph_(ws.graph) {}

  std::optional<Stream> find(NodeId first_norm, std::string* reason) {
    try {
      const ValueId start = graph_.node(first_norm).inputs.at(0);
      const auto& shape = graph_.value(start).shape;
      if (!shape) fail("rank of the stream is unknown");
      stream_.channels = ws_.constant(first_norm, 1).numel();
      add(start, static_cast<int64_t>(shape->size()) - 1);
      while (!todo_.empty()) {
        const ValueId v = todo_.back();
        todo_.pop_back();
        backward(v);
        forward(v);
      }
      return stream_;
    } catch (const Error& error) {
      if (reason != nullptr) *reason = error.what();
      return std::nullopt;
    }
  }

 private:
  [[noreturn]] static void fail(const std::string& why) {
    throw Error(ErrorCode::kUnsupported, "rotate: " + why);
  }

  int64_t rank(ValueId v) const {
    if (graph_.is_constant(v)) return ws_.constant(v).dim();
    const auto& shape = graph_.value(v).shape;
    if (!shape) fail("rank of \"" + graph_.value(v).name + "\" is unknown");
    return static_cast<int64_t>(shape->size());
  }

  void add(ValueId v, int64_t axis) {
    const auto [at, fresh] = stream_.axis.emplace(v, axis);
    if (!fresh) {
      if (at->second != axis) fail("channels of \"" + graph_.value(v).name + "\" lie on two axes");
      return;
    }
    if (graph_.is_constant(v)) {
      if (ws_.constant(v).size(axis) != stream_.channels)
        fail("a broadcast constant writes the stream");
      if (graph_.consumers(v).size() > 1)
        fail("constant \"" + graph_.value(v).name + "\" is shared");
      stream_.constants.push_back(v);
    } else {
      todo_.push_back(v);
    }
  }

  void backward(ValueId v) {
    const NodeId id = graph_.value(v).producer;
    if (id < 0) fail("the stream begins at a graph input");
    const Node& node = graph_.node(id);
    const int64_t axis = stream_.axis.at(v), r = rank(v);
    switch (node.op) {
      case OpKind::kLinear:
        if (axis != r - 1) {
          fail("\"" + node.name + "\" writes other channels");
        }
        if (!ws_.has_constant(id, 1) || !ws_.has_constant(id, 2)) fail("weights are not constant");
        stream_.linears.push_back(id);
        return;
      case OpKind::kConv:
        if (axis != 1 || node.attrs.integer("group", 1) != 1)
          fail("\"" + node.name + "\" cannot be rotated");
        if (!ws_.has_constant(id, 1) || !ws_.has_constant(id, 2)) fail("weights are not constant");
        stream_.convs.push_back(id);
        return;
      default:
        pass(id, v, axis, r);
    }
  }

  // Ops that only move or add channels-parallel data: every data input joins the stream.
  void pass(NodeId id, ValueId out, int64_t axis, int64_t r) {
    const Node& node = graph_.node(id);
    const int64_t from_end = axis - r;
    switch (node.op) {
      case OpKind::kAdd:
        for (const ValueId in : node.inputs) add(in, rank(in) + from_end);
        return;
      case OpKind::kConcat: {
        const int64_t at = node.attrs.integer("axis", 0);
        if ((at < 0 ? at + r : at) == axis) fail("\"" + node.name + "\" joins channels");
        for (const ValueId in : node.inputs) add(in, axis);
        return;
      }
      case OpKind::kExpand:
      case OpKind::kIdentity:
      case OpKind::kDropout:
        add(node.inputs.at(0), rank(node.inputs[0]) + from_end);
        return;
      case OpKind::kTranspose: {
        const std::vector<int64_t> perm = node.attrs.integers("perm");
        if (static_cast<int64_t>(perm.size()) != r) fail("transpose without perm");
        add(node.inputs.at(0), perm[static_cast<size_t>(axis)]);
        return;
      }
      case OpKind::kReshape:
      case OpKind::kFlatten:
        add(node.inputs.at(0), reshaped_axis(node.inputs[0], out, axis));
        return;
      case OpKind::kReduceMean:
      case OpKind::kSlice:
      case OpKind::kGather: {
        const int64_t last = rank(node.inputs.at(0)) - 1;
        if (axis != r - 1 || !keeps_rows(node, last)) fail("\"" + node.name + "\" mixes channels");
        add(node.inputs[0], last);
        return;
      }
      default:
        fail(fmt::format("\"{}\" ({}) writes the stream", node.name, name_of(node.op)));
    }
  }

  // Whole rows are picked or averaged: the last axis comes out as it went in.
  bool keeps_rows(const Node& node, int64_t last) const {
    const auto& from = graph_.value(node.inputs.at(0)).shape;
    const auto& to = graph_.value(node.outputs.at(0)).shape;
    if (!from || !to || to->empty() || !(from->back() == to->back()) || !to->back().known())
      return false;
    if (node.op != OpKind::kGather) return true;
    const int64_t axis = node.attrs.integer("axis", 0);
    return axis != last && axis != -1;
  }

  // The axis of `in` that is axis `axis` of its reshape `out`: same size, same element count behind
  // it.
  int64_t reshaped_axis(ValueId in, ValueId out, int64_t axis) const {
    const auto& from = graph_.value(in).shape;
    const auto& to = graph_.value(out).shape;
    if (!from || !to) fail("a reshape of the stream has no shape");
    int64_t behind = 1;
    for (size_t i = static_cast<size_t>(axis) + 1; i < to->size(); ++i) {
      if (!(*to)[i].known()) fail("a reshape of the stream has no known shape");
      behind *= (*to)[i].size;
    }
    int64_t count = 1;
    for (size_t i = from->size(); i-- > 0;) {
      if (count == behind && (*from)[i].known() && (*from)[i].size == stream_.channels) {
        return static_cast<int64_t>(i);
      }
      if (!(*from)[i].known()) break;
      count *= (*from)[i].size;
    }
    fail("a reshape mixes channels");
  }

  void forward(ValueId v) {
    if (graph_.is_output(v)) fail("the stream is a graph output");
    const int64_t axis = stream_.axis.at(v), r = rank(v);
    for (const NodeId id : graph_.consumers(v)) {
      const Node& node = graph_.node(id);
      switch (node.op) {
        case OpKind::kLayerNorm:
        case OpKind::kRmsNorm:
          if (axis != r - 1) fail("a norm reads other channels");
          stream_.norms.insert(id);
          break;
        case OpKind::kAdd:
        case OpKind::kConcat:
        case OpKind::kIdentity:
        case OpKind::kDropout:
        case OpKind::kExpand:
          add(node.outputs.at(0), rank(node.outputs[0]) + axis - r);
          break;
        case OpKind::kTranspose: {
          const std::vector<int64_t> perm = node.attrs.integers("perm");
          for (size_t i = 0; i < perm.size(); ++i) {
            if (perm[i] == axis) add(node.outputs.at(0), static_cast<int64_t>(i));
          }
          break;
        }
        case OpKind::kReshape:
        case OpKind::kFlatten:
          forward_reshape(v, node.outputs.at(0), axis);
          break;
        case OpKind::kReduceMean:
        case OpKind::kSlice:
        case OpKind::kGather:
          if (axis != r - 1 || !keeps_rows(node, axis))
            fail("\"" + node.name + "\" mixes channels");
          add(node.outputs.at(0), rank(node.outputs[0]) - 1);
          break;
        case OpKind::kShape:
          break;
        default:
          fail(fmt::format("\"{}\" ({}) reads the stream", node.name, name_of(node.op)));
      }
    }
  }

  void forward_reshape(ValueId in, ValueId out, int64_t axis) {
    const auto& to = graph_.value(out).shape;
    if (!to) fail("a reshape of the stream has no shape");
    for (size_t i = 0; i < to->size(); ++i) {
      if ((*to)[i].size != stream_.channels) continue;
      if (reshaped_axis(in, out, static_cast<int64_t>(i)) == axis) {
        add(out, static_cast<int64_t>(i));
        return;
      }
    }
    fail("a reshape mixes channels");
  }

  const Workspace& ws_;
  const Graph& graph_;
  Stream stream_;
  std::vector<ValueId> todo_;
};

// Linears behind a norm, through ops that pick or move whole rows.
bool norm_readers(const Workspace& ws, ValueId v, std::set<NodeId>& linears, std::string* reason) {
  const Graph& graph = ws.graph;
  if (graph.is_output(v)) {
    *reason = "a norm output is a graph output";
    return false;
  }
  for (const NodeId id : graph.consumers(v)) {
    const Node& node = graph.node(id);
    const auto& shape = graph.value(v).shape;
    const int64_t last = shape ? static_cast<int64_t>(shape->size()) - 1 : -1;
    switch (node.op) {
      case OpKind::kLinear:
        if (!ws.has_constant(id, 1) || !ws.has_constant(id, 2)) break;
        linears.insert(id);
        continue;
      case OpKind::kGather:
        if (last < 0 || node.attrs.integer("axis", 0) == last ||
            node.attrs.integer("axis", 0) == -1)
          break;
        if (!norm_readers(ws, node.outputs[0], linears, reason)) return false;
        continue;
      case OpKind::kIdentity:
      case OpKind::kDropout:
      case OpKind::kSqueeze:
        if (!norm_readers(ws, node.outputs[0], linears, reason)) return false;
        continue;
      case OpKind::kReshape:
      case OpKind::kSlice:
      case OpKind::kReduceMean: {
        const auto& to = graph.value(node.outputs[0]).shape;
        if (!to || to->empty() || !shape || !(to->back() == shape->back()) ||
            !shape->back().known())
          break;
        if (!norm_readers(ws, node.outputs[0], linears, reason)) return false;
        continue;
      }
      case OpKind::kShape:
        continue;
      default:
        break;
    }
    *reason = fmt::format("\"{}\" ({}) reads a norm", node.name, name_of(node.op));
    return false;
  }
  return true;
}

void set_both(Workspace& ws, NodeId node, int input, const at::Tensor& value) {
  ws.set_constant(node, input, value);
  ws.reference[ws.graph.node(node).inputs[static_cast<size_t>(input)]] = value;
}

// Gain and bias of a norm move into the linears behind it.
void move_affine(Workspace& ws, NodeId norm, const std::set<NodeId>& linears) {
  const at::Tensor gain = ws.constant(norm, 1).reshape({-1}).to(at::kDouble);
  const at::Tensor bias = ws.constant(norm, 2).reshape({-1}).to(at::kDouble);
  for (const NodeId id : linears) {
    const at::Tensor w = ws.constant(id, 1).to(at::kDouble);
    const at::Tensor b = ws.constant(id, 2).to(at::kDouble);
    set_both(ws, id, 2, (b + at::mv(w, bias)).to(at::kFloat));
    set_both(ws, id, 1, (w * gain).to(at::kFloat));
  }
  set_both(ws, norm, 1, at::ones_like(ws.constant(norm, 1)));
  set_both(ws, norm, 2, at::zeros_like(ws.constant(norm, 2)));
}

// x -> x A along the channels of every writer.
void transform_writers(Workspace& ws, const Stream& stream, const at::Tensor& a) {
  const at::Tensor at_ = a.t().contiguous();
  for (const NodeId id : stream.linears) {
    set_both(ws, id, 1, at::mm(at_, ws.constant(id, 1).to(at::kDouble)).to(at::kFloat));
    set_both(ws, id, 2, at::mv(at_, ws.constant(id, 2).to(at::kDouble)).to(at::kFloat));
  }
  for (const NodeId id : stream.convs) {
    const at::Tensor w = ws.constant(id, 1);
    const at::Tensor rows = w.reshape({w.size(0), -1}).to(at::kDouble);
    set_both(ws, id, 1, at::mm(at_, rows).reshape(w.sizes()).to(at::kFloat));
    set_both(ws, id, 2, at::mv(at_, ws.constant(id, 2).to(at::kDouble)).to(at::kFloat));
  }
  for (const ValueId v : stream.constants) {
    const int64_t axis = stream.axis.at(v);
    const at::Tensor moved = ws.constant(v).to(at::kDouble).movedim(axis, -1);
    const at::Tensor value = at::matmul(moved, a).movedim(-1, axis).contiguous().to(at::kFloat);
    ws.weights[v] = value;
    ws.reference[v] = value;
  }
}

}  // namespace

bool rotate_residual(Workspace& ws, uint64_t seed, std::string* reason) {
  std::string ignored;
  if (reason == nullptr) reason = &ignored;
  NodeId first = -1;
  for (const NodeId id : ws.graph.order()) {
    const OpKind op = ws.graph.node(id).op;
    if (first < 0 && (op == OpKind::kLayerNorm || op == OpKind::kRmsNorm) && ws.has_constant(id, 1))
      first = id;
  }
  if (first < 0) {
    *reason = "no norm over the last axis";
    return false;
  }
  const std::optional<Stream> stream = StreamFinder(ws).find(first, reason);
  if (!stream) return false;
  const bool centre = ws.graph.node(first).op == OpKind::kLayerNorm;
  std::map<NodeId, std::set<NodeId>> readers;
  for (const NodeId norm : stream->norms) {
    if ((ws.graph.node(norm).op == OpKind::kLayerNorm) != centre || !ws.has_constant(norm, 1) ||
        !ws.has_constant(norm, 2)) {
      *reason = "norms of the stream differ in kind";
      return false;
    }
    if (!norm_readers(ws, ws.graph.node(norm).outputs.at(0), readers[norm], reason)) return false;
  }
  const std::optional<at::Tensor> r = random_rotation(stream->channels, seed);
  if (!r) {
    *reason = fmt::format("no Hadamard matrix of order {}", stream->channels);
    return false;
  }
  at::Tensor write = *r;
  if (centre) {
    write = *r - at::full_like(*r, 1.0 / static_cast<double>(stream->channels)).matmul(*r);
  }
#ifdef REPQUANT_DEBUG_CHECKS
  const OutputProbe probe(ws);
#endif
  for (const auto& [norm, linears] : readers) {
    move_affine(ws, norm, linears);
    for (const NodeId id : linears) {
      set_both(ws, id, 1, at::mm(ws.constant(id, 1).to(at::kDouble), *r).to(at::kFloat));
    }
    ws.graph.node(norm).op = OpKind::kRmsNorm;
  }
  transform_writers(ws, *stream, write);
#ifdef REPQUANT_DEBUG_CHECKS
  probe.check(ws);
#endif
  ws.applied.push_back("rotate_residual");
  return true;
}

std::optional<OperandRows> operand_rows(const Workspace& ws, NodeId attention, int input) {
  const Graph& graph = ws.graph;
  const ValueId v = graph.node(attention).inputs.at(static_cast<size_t>(input));
  const NodeId producer = graph.value(v).producer;
  if (producer < 0 || graph.consumers(v).size() != 1) return std::nullopt;
  const Node& node = graph.node(producer);
  const auto usable = [&](NodeId id) {
    return graph.node(id).op == OpKind::kLinear && ws.has_constant(id, 1) && ws.has_constant(id, 2);
  };
  if (usable(producer)) return OperandRows{producer, 0, ws.constant(producer, 1).size(0)};
  if (node.op != OpKind::kSplit) return std::nullopt;
  const ValueId fused = node.inputs.at(0);
  const NodeId linear = graph.value(fused).producer;
  if (linear < 0 || !usable(linear) || graph.consumers(fused).size() != 1) return std::nullopt;
  int64_t begin = 0;
  for (const ValueId out : node.outputs) {
    const auto& shape = graph.value(out).shape;
    if (!shape || !shape->back().known()) return std::nullopt;
    if (out == v) return OperandRows{linear, begin, begin + shape->back().size};
    begin += shape->back().size;
  }
  return std::nullopt;
}

std::optional<NodeId> attention_projection(const Workspace& ws, NodeId attention) {
  const ValueId out = ws.graph.node(attention).outputs.at(0);
  const std::vector<NodeId> readers = ws.graph.consumers(out);
  if (readers.size() != 1 || ws.graph.is_output(out)) return std::nullopt;
  const bool linear = ws.graph.node(readers[0]).op == OpKind::kLinear &&
                      ws.has_constant(readers[0], 1) && ws.has_constant(readers[0], 2) &&
                      ws.graph.node(readers[0]).inputs[0] == out;
  return linear ? std::optional<NodeId>(readers[0]) : std::nullopt;
}

namespace {

// Rows [begin, end) of weight and bias, one head after the other: rows of a head <- H^T rows.
void rotate_rows(Workspace& ws, const OperandRows& rows, int64_t heads, const at::Tensor& h) {
  for (const int input : {1, 2}) {
    at::Tensor full = ws.constant(rows.linear, input).to(at::kDouble).clone();
    const at::Tensor part = full.slice(0, rows.begin, rows.end);
    const int64_t d = (rows.end - rows.begin) / heads;
    const at::Tensor turned = at::matmul(h.t(), part.reshape({heads, d, -1})).reshape(part.sizes());
    part.copy_(turned);
    set_both(ws, rows.linear, input, full.to(at::kFloat));
  }
}

void rotate_columns(Workspace& ws, NodeId linear, int64_t heads, const at::Tensor& h) {
  const at::Tensor w = ws.constant(linear, 1).to(at::kDouble);
  const at::Tensor turned = at::matmul(w.reshape({w.size(0), heads, -1}), h).reshape(w.sizes());
  set_both(ws, linear, 1, turned.to(at::kFloat));
}

}  // namespace

int rotate_heads(Workspace& ws, uint64_t seed) {
  int count = 0;
#ifdef REPQUANT_DEBUG_CHECKS
  const OutputProbe probe(ws);
#endif
  for (const NodeId id : ws.graph.order()) {
    const Node& node = ws.graph.node(id);
    if (node.op != OpKind::kMultiHeadAttention) continue;
    const int64_t heads = node.attrs.integer("heads", 1),
                  kv = node.attrs.integer("kv_heads", heads);
    const auto q = operand_rows(ws, id, 0), k = operand_rows(ws, id, 1),
               v = operand_rows(ws, id, 2);
    const auto projection = attention_projection(ws, id);
    if (!q || !k || !v || !projection || kv != heads) continue;
    const auto hq = random_rotation((q->end - q->begin) / heads, seed + 1);
    const auto hv = random_rotation((v->end - v->begin) / heads, seed + 2);
    if (!hq || !hv) continue;
    rotate_rows(ws, *q, heads, *hq);
    rotate_rows(ws, *k, heads, *hq);
    rotate_rows(ws, *v, heads, *hv);
    rotate_columns(ws, *projection, heads, *hv);
    ++count;
  }
#ifdef REPQUANT_DEBUG_CHECKS
  probe.check(ws);
#endif
  if (count > 0) ws.applied.push_back("rotate_heads");
  return count;
}

}  // namespace repquant::reparameterize
