#include <algorithm>
#include <map>

#include "repquant/graph/ops/shape_functions.h"

namespace repquant::shapes {
namespace {

// numpy's matmul: vectors gain a dimension that is dropped again, leading dimensions broadcast.
void product_of(InferContext& c, size_t left, size_t right) {
  const auto *a_shape = c.shape(left), *b_shape = c.shape(right);
  if (!a_shape || !b_shape) return;
  SymbolicShape a = *a_shape, b = *b_shape;
  if (a.empty() || b.empty()) c.fail("matrices, got a scalar");
  const bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), known_dim(1));
  if (column) b.push_back(known_dim(1));
  if (!merge(a.back(), b[b.size() - 2])) {
    c.fail("equal inner sizes, got " + to_string(*a_shape) + " and " + to_string(*b_shape));
  }
  SymbolicShape out(std::max(a.size(), b.size()) - 2, known_dim(1));
  for (const SymbolicShape* side : {&a, &b}) {
    const size_t leading = side->size() - 2, offset = out.size() - leading;
    for (size_t i = 0; i < leading; ++i) {
      const auto both = broadcast(out[offset + i], (*side)[i]);
      if (!both)
        c.fail("leading sizes that broadcast, got " + to_string(*a_shape) + " and " +
               to_string(*b_shape));
      out[offset + i] = *both;
    }
  }
  if (!row) out.push_back(a[a.size() - 2]);
  if (!column) out.push_back(b.back());
  c.set_shape(0, std::move(out));
}

Dim over(const Dim& dim, int64_t parts) {
  return parts > 0 ? divide(dim, known_dim(parts)).value_or(Dim{}) : Dim{};
}

}  // namespace

void mat_mul(InferContext& c) { product_of(c, 0, 1); }

void mat_mul_integer(InferContext& c) {
  c.set_dtype(0, DType::kI32);
  product_of(c, 0, 1);
}

void qlinear_mat_mul(InferContext& c) {
  c.set_dtype(0, c.dtype(7));
  product_of(c, 0, 3);
}

void gemm(InferContext& c) {
  const auto *a = c.shape(0), *b = c.shape(1);
  if (!a || !b) return c.set_shape(0, SymbolicShape(2));
  if (a->size() != 2 || b->size() != 2)
    c.fail("matrices, got " + to_string(*a) + " and " + to_string(*b));
  const bool ta = c.node().attrs.integer("transA", 0) != 0,
             tb = c.node().attrs.integer("transB", 0) != 0;
  if (!merge((*a)[ta ? 0 : 1], (*b)[tb ? 1 : 0])) {
    c.fail("equal inner sizes, got " + to_string(*a) + " and " + to_string(*b));
  }
  c.set_shape(0, {(*a)[ta ? 1 : 0], (*b)[tb ? 0 : 1]});
}

void linear(InferContext& c) {
  const auto *x = c.shape(0), *w = c.shape(1);
  if (!x || !w) return;
  if (x->empty() || w->size() != 2 || !merge(x->back(), (*w)[1])) {
    c.fail("a weight [N, K] for " + to_string(*x) + ", got " + to_string(*w));
  }
  SymbolicShape out = *x;
  out.back() = (*w)[0];
  c.set_shape(0, std::move(out));
}

// "bij,bjk->bik" and the implicit form; an ellipsis stays unknown.
void einsum(InferContext& c) {
  std::string equation = c.node().attrs.text("equation", "");
  std::erase(equation, ' ');
  if (equation.find('.') != std::string::npos) return;
  const size_t arrow = equation.find("->");
  const std::string inputs = equation.substr(0, arrow);
  std::map<char, Dim> sizes;
  std::map<char, int> uses;
  size_t operand = 0, position = 0;
  for (const char letter : inputs + ",") {
    const auto* shape = c.shape(operand);
    if (letter == ',') {
      if (shape && position != shape->size())
        c.fail("an index a dimension of " + to_string(*shape) + ", got \"" + equation + "\"");
      ++operand;
      position = 0;
      continue;
    }
    ++uses[letter];
    if (shape) {
      if (position >= shape->size())
        c.fail("an index a dimension of " + to_string(*shape) + ", got \"" + equation + "\"");
      const auto both =
          broadcast(sizes.emplace(letter, (*shape)[position]).first->second, (*shape)[position]);
      if (!both) c.fail(std::string("one size for index ") + letter + " of \"" + equation + "\"");
      sizes[letter] = *both;
    }
    ++position;
  }
  if (operand != c.node().inputs.size()) c.fail("a term an input, got \"" + equation + "\"");
  std::string result;
  if (arrow != std::string::npos) result = equation.substr(arrow + 2);
  else for (const auto& [letter, count] : uses) if (count == 1) result += letter;
  SymbolicShape out;
  for (const char letter : result) {
    if (!uses.count(letter)) c.fail("output indices of the inputs, got \"" + equation + "\"");
    out.push_back(sizes.count(letter) ? sizes[letter] : Dim{});
  }
  c.set_shape(0, std::move(out));
}

void multi_head_attention(InferContext& c) {
  const auto *q = c.shape(0), *v = c.shape(2);
  if (!q || !v || q->size() < 2 || v->size() < 2) return;
  const int64_t heads = c.node().attrs.integer("heads", 1);
  const int64_t kv_heads = c.node().attrs.integer("kv_heads", heads);
  if (heads <= 0 || kv_heads <= 0 || heads % kv_heads != 0)
    c.fail("heads that the key heads divide");
  SymbolicShape out = *q;
  out.back() = multiply(over(v->back(), kv_heads), known_dim(heads));
  c.set_shape(0, std::move(out));
}

void onnx_attention(InferContext& c) {
  const auto *q = c.shape(0), *v = c.shape(2);
  if (!q || !v || q->size() != v->size()) return;
  SymbolicShape out = *q;
  if (q->size() == 4) out[3] = (*v)[3];
  else if (q->size() == 3) {
    const int64_t heads = c.node().attrs.integer("q_num_heads", 0);
    out[2] = heads > 0 ? multiply(over((*v)[2], c.node().attrs.integer("kv_num_heads", 0)),
                                  known_dim(heads))
                       : Dim{};
  } else {
    c.fail("queries of 3 or 4 dimensions, got " + to_string(*q));
  }
  c.set_shape(0, std::move(out));
}

}  // namespace repquant::shapes
