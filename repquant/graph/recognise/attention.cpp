// multi_head_attention from MatMul, scale, bias or mask, Softmax, MatMul. Scales before and after the
// first product become one; the ops that split and merge heads disappear into the op's own layout.
#include <algorithm>
#include <array>

#include "repquant/graph/recognise/layout.h"
#include "repquant/graph/recognise/mask.h"
#include "repquant/graph/reference/kernels.h"

namespace repquant::patterns {
namespace {

struct Scores {
  const Node* product = nullptr;   // MatMul of queries and keys
  double scale = 1;                // between the product and the softmax
  ValueId head_scale = kNoValue;   // a constant factor a head, [H, 1, 1]
  std::vector<MaskTerm> terms;     // added after the scale
};

std::optional<int64_t> per_head(const Matcher& m, ValueId id) {
  const Tensor* t = m.constant(id);
  if (!t || t->dtype() != DType::kF32 || t->rank() < 3) return std::nullopt;
  const Shape& s = t->shape();
  const int64_t heads = s[s.size() - 3];
  return s.back() == 1 && s[s.size() - 2] == 1 && heads == t->size() ? std::optional(heads)
                                                                     : std::nullopt;
}

bool collect_scores(Matcher& m, ValueId at, Scores& out, int depth);

bool collect_where(Matcher& m, const Node& node, Scores& out, int depth) {
  for (const size_t kept : {size_t{2}, size_t{1}}) {
    const auto fill = m.scalar(node.inputs[3 - kept]);
    if (!fill || out.scale != 1 || out.head_scale != kNoValue) continue;
    const size_t terms = out.terms.size();
    out.terms.push_back(
        {node.inputs[0], kept == 1 ? MaskTerm::kKeepWhere : MaskTerm::kFillWhere, *fill});
    if (collect_scores(m, node.inputs[kept], out, depth)) return true;
    out.terms.resize(terms);
  }
  return false;
}

bool collect_add(Matcher& m, const Node& node, Scores& out, int depth) {
  if (out.scale != 1 || out.head_scale != kNoValue) return false;   // the bias would be scaled, too
  const Scores before = out;
  for (const size_t kept : {size_t{0}, size_t{1}}) {
    if (m.constant(node.inputs[kept])) continue;
    out.terms.push_back({node.inputs[1 - kept], MaskTerm::kAdded, 0});
    if (collect_scores(m, node.inputs[kept], out, depth)) return true;
    out = before;
  }
  return false;
}

// Walks from the softmax back to the product.
bool collect_scores(Matcher& m, ValueId at, Scores& out, int depth) {
  const Node* node = m.producer(m.skip_casts(at));
  if (!node || depth == 0) return false;
  switch (node->op) {
    case OpKind::kMatMul:
      out.product = node;
      return !m.constant(node->inputs[0]) && !m.constant(node->inputs[1]);
    case OpKind::kAdd: return collect_add(m, *node, out, depth - 1);
    case OpKind::kWhere: return collect_where(m, *node, out, depth - 1);
    case OpKind::kReshape: {
      const auto window =
          out.scale == 1 && out.head_scale == kNoValue ? window_mask(m, *node) : std::nullopt;
      if (!window) return false;
      out.terms.push_back(window->term);
      return collect_scores(m, window->scores, out, depth - 1);
    }
    case OpKind::kMul:
    case OpKind::kDiv: break;
    default: return false;
  }
  const auto operands = m.with_constant(*node);
  if (!operands) return false;
  if (const auto factor = m.scalar(operands->constant)) {
    out.scale *= node->op == OpKind::kMul ? *factor : 1 / *factor;
  } else if (node->op == OpKind::kMul && per_head(m, operands->constant) &&
             out.head_scale == kNoValue) {
    out.head_scale = operands->constant;
  } else {
    return false;
  }
  return collect_scores(m, operands->value, out, depth - 1);
}

struct Parts {
  Scores scores;
  Source q, k, v;
  Merged merged;
  int64_t heads = 0;
};

std::optional<Parts> find_parts(Matcher& m, const Node& softmax) {
  const SymbolicShape* shape = m.shape(softmax.inputs[0]);
  if (!shape || shape->size() < 3) return std::nullopt;
  const int64_t axis = softmax.attrs.integer("axis", -1),
                rank = static_cast<int64_t>(shape->size());
  if (axis != -1 && axis != rank - 1) return std::nullopt;
  Parts p;
  if (!collect_scores(m, softmax.inputs[0], p.scores, 8)) return std::nullopt;
  ValueId probabilities = softmax.outputs[0];
  while (m.read_once(probabilities) &&
         m.graph().node(m.readers(probabilities)[0]).op == OpKind::kCast) {
    probabilities = m.graph().node(m.readers(probabilities)[0]).outputs[0];
  }
  if (!m.read_once(probabilities)) return std::nullopt;
  const Node& second = m.graph().node(m.readers(probabilities)[0]);
  if (second.op != OpKind::kMatMul || second.inputs[0] != probabilities ||
      m.constant(second.inputs[1])) {
    return std::nullopt;
  }
  const bool head_axis = rank >= 4;
  const auto q = trace_source(m, p.scores.product->inputs[0], Operand::kRowsByHead, head_axis);
  const auto k = trace_source(m, p.scores.product->inputs[1], Operand::kColumnsByHead, head_axis);
  const auto v = trace_source(m, second.inputs[1], Operand::kRowsByHead, head_axis);
  const auto merged = merged_heads(m, second.outputs[0], head_axis);
  if (!q || !k || !v || !merged || k->heads != v->heads) return std::nullopt;
  if (v->scale != 1 || v->epsilon != 0) return std::nullopt;
  if (q->heads % k->heads != 0) return std::nullopt;
  p.q = *q;
  p.k = *k;
  p.v = *v;
  p.merged = *merged;
  p.heads = q->heads;
  const SymbolicShape* product = m.shape(p.scores.product->outputs[0]);
  if (head_axis && product && (*product)[product->size() - 3].size != p.heads) return std::nullopt;
  return p;
}

// ---- the replacement --------------------------------------------------------------------------------

struct Builder {
  Matcher& m;
  std::string name;
  std::vector<Node> nodes;

  ValueId add(OpKind op, const std::string& part, std::vector<ValueId> inputs, Attrs attrs = {}) {
    const ValueId output = m.add_value(name + "." + part);
    nodes.push_back({op, name + "." + part, std::move(inputs), {output}, std::move(attrs)});
    return output;
  }
  ValueId integers(const std::string& part, const std::vector<int64_t>& values) {
    return m.add_constant(name + "." + part,
                          Tensor::of<int64_t>({static_cast<int64_t>(values.size())}, values));
  }
};

// [.., KV, T, d] -> [.., T, KV * d]
ValueId merge_heads(Builder& b, const Source& source, const std::string& part, size_t rank) {
  std::vector<int64_t> perm(rank), target(rank - 1, 0);
  for (size_t d = 0; d < rank; ++d) perm[d] = static_cast<int64_t>(d);
  std::swap(perm[rank - 3], perm[rank - 2]);
  target.back() = source.heads * source.width;
  Attrs attrs;
  attrs.set("perm", perm);
  const ValueId swapped = b.add(OpKind::kTranspose, part + ".heads", {source.base}, attrs);
  return b.add(OpKind::kReshape, part, {swapped, b.integers(part + ".shape", target)});
}

// Three parts of one value that follow each other and cover it: one split. Empty: not so.
std::vector<ValueId> split_sources(Builder& b, const std::array<Source, 3>& sources) {
  std::vector<size_t> order{0, 1, 2};
  std::sort(order.begin(), order.end(),
            [&](size_t i, size_t j) { return sources[i].offset < sources[j].offset; });
  std::vector<int64_t> sizes;
  int64_t at = 0;
  for (const size_t i : order) {
    const Source& s = sources[i];
    if (s.headed || s.base != sources[0].base || s.offset != at) return {};
    sizes.push_back(s.heads * s.width);
    at += sizes.back();
  }
  if (at != sources[0].channels) return {};
  Node split{OpKind::kSplit,
             b.name + ".split",
             {sources[0].base, b.integers("split.sizes", sizes)},
             {},
             {}};
  split.attrs.set("axis", int64_t{-1});
  std::vector<ValueId> parts(3);
  const char* const names[] = {"q", "k", "v"};
  for (const size_t i : order) {
    parts[i] = b.m.add_value(b.name + "." + names[i]);
    split.outputs.push_back(parts[i]);
  }
  b.nodes.push_back(std::move(split));
  return parts;
}

ValueId flat_source(Builder& b, const Source& source, const std::string& part,
                    size_t operand_rank) {
  if (source.headed) return merge_heads(b, source, part, operand_rank);
  const int64_t size = source.heads * source.width;
  if (source.offset == 0 && size == source.channels) return source.base;
  return b.add(
      OpKind::kSlice, part,
      {source.base, b.integers(part + ".start", {source.offset}),
       b.integers(part + ".end", {source.offset + size}), b.integers(part + ".axis", {-1})});
}

// Every head of every token divided by its size.
ValueId normalised_heads(Builder& b, ValueId flat, const Source& source, const std::string& part,
                         size_t operand_rank, bool head_axis) {
  Attrs attrs;
  attrs.set("p", int64_t{2});
  attrs.set("axis", int64_t{-1});
  attrs.set("epsilon", static_cast<float>(source.epsilon));
  if (!head_axis) return b.add(OpKind::kLpNorm, part + ".l2", {flat}, attrs);
  std::vector<int64_t> apart(operand_rank, 0), joined(operand_rank - 1, 0);
  apart[operand_rank - 2] = source.heads;
  apart.back() = source.width;
  joined.back() = source.heads * source.width;
  const ValueId heads =
      b.add(OpKind::kReshape, part + ".heads", {flat, b.integers(part + ".apart", apart)});
  const ValueId norm = b.add(OpKind::kLpNorm, part + ".l2", {heads}, attrs);
  return b.add(OpKind::kReshape, part + ".unit", {norm, b.integers(part + ".joined", joined)});
}

std::vector<ValueId> flat_sources(Builder& b, const Parts& p, size_t operand_rank) {
  std::vector<ValueId> parts = split_sources(b, {p.q, p.k, p.v});
  if (parts.empty()) {
    parts = {flat_source(b, p.q, "q", operand_rank), flat_source(b, p.k, "k", operand_rank),
             flat_source(b, p.v, "v", operand_rank)};
  }
  for (const size_t i : {size_t{0}, size_t{1}}) {
    const Source& source = i == 0 ? p.q : p.k;
    if (source.epsilon > 0) {
      parts[i] = normalised_heads(b, parts[i], source, i == 0 ? "q" : "k", operand_rank,
                                  operand_rank >= 4);
    }
  }
  return parts;
}

ValueId mask_value(Builder& b, const MaskTerm& term) {
  if (term.kind == MaskTerm::kAdded) return term.value;
  const ValueId fill =
      b.m.add_constant(b.name + ".fill", Tensor::scalar(static_cast<float>(term.fill)));
  const ValueId zero = b.m.add_constant(b.name + ".zero", Tensor::scalar(0.0F));
  const bool fills = term.kind == MaskTerm::kFillWhere;
  return b.add(OpKind::kWhere, "mask", {term.value, fills ? fill : zero, fills ? zero : fill});
}

bool head_scale_fits(const Matcher& m, const Parts& p) {
  return p.scores.head_scale == kNoValue || per_head(m, p.scores.head_scale) == p.heads;
}

void match(Matcher& m, const Node& softmax) {
  const auto p = find_parts(m, softmax);
  if (!p || !head_scale_fits(m, *p)) return;
  const size_t rank = m.shape(softmax.inputs[0])->size();
  const auto mask =
      combine_mask(m, p->scores.terms, m.shape(p->scores.product->outputs[0]), rank >= 4);
  if (!mask) return;
  Builder b{m, softmax.name, {}};
  std::vector<ValueId> inputs = flat_sources(b, *p, rank);
  ValueId bias = mask->constant;
  for (const MaskTerm& term : mask->terms) {
    const ValueId one = mask_value(b, term);
    bias = bias == kNoValue ? one : b.add(OpKind::kAdd, "bias", {bias, one});
  }
  if (bias != kNoValue) inputs.push_back(bias);
  Node node{OpKind::kMultiHeadAttention, softmax.name, inputs, {p->merged.value}, {}};
  node.attrs.set("heads", p->heads);
  node.attrs.set("kv_heads", p->k.heads);
  node.attrs.set("scale", static_cast<float>(p->scores.scale * p->q.scale * p->k.scale));
  node.attrs.set("causal", int64_t{mask->causal});
  if (p->scores.head_scale != kNoValue) {
    const auto factors = m.constant(p->scores.head_scale)->as<float>();
    node.attrs.set("head_scale", std::vector<float>(factors.begin(), factors.end()));
  }
  Rewrite rewrite{"multi_head_attention",
                  softmax.name,
                  {p->q.base, p->k.base, p->v.base},
                  {p->merged.value},
                  {}};
  for (const MaskTerm& term : mask->terms) rewrite.inputs.push_back(term.value);
  rewrite.sample = Sample::kShape;
  rewrite.once = true;
  b.nodes.push_back(std::move(node));
  if (!p->merged.exact) {   // something else reads it in another shape of the same order
    const Node* reshape = m.producer(p->merged.value);
    const ValueId plain = m.add_value(softmax.name + ".merged");
    b.nodes.back().outputs = {plain};
    Node last{OpKind::kReshape, reshape->name, {plain, reshape->inputs[1]}, {p->merged.value}, {}};
    b.nodes.push_back(std::move(last));
  }
  rewrite.nodes = std::move(b.nodes);
  m.apply(std::move(rewrite));
}

}   // namespace

void recognise_attention(Matcher& m) {
  for (const NodeId id : std::vector<NodeId>(m.graph().order())) {
    if (!m.graph().alive(id)) continue;
    const Node node = m.graph().node(id);
    if (node.op == OpKind::kSoftmax) match(m, node);
  }
}

}   // namespace repquant::patterns
