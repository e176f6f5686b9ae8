#include <algorithm>

#include "repquant/graph/ops/shape_functions.h"

namespace repquant::shapes {
namespace {

void pass_integers(InferContext& c, bool scalar) {
  if (const auto* known = c.integers(0)) c.set_integers(0, IntTensor{scalar, known->elements});
}

SymbolicShape unknown_rank(size_t rank) { return SymbolicShape(rank); }

// The product of the input over the product of the known targets; dimensions that are copied cancel
// even when nothing is known of them.
Dim solve_remainder(const InferContext& c, const SymbolicShape& input, const SymbolicShape& target,
                    const std::vector<bool>& copied, size_t hole) {
  SymbolicShape above, below;
  for (size_t i = 0; i < input.size(); ++i) {
    if (i >= copied.size() || !copied[i]) above.push_back(input[i]);
  }
  for (size_t i = 0; i < target.size(); ++i) {
    if (i != hole && !copied[i]) below.push_back(target[i]);
  }
  const Dim whole = product(above), part = product(below);
  const auto quotient = divide(whole, part);
  if (quotient) return *quotient;
  if (whole.known() && part.known() && part.size != 0) {
    c.fail("a shape for " + std::to_string(whole.size) + " elements, got " + to_string(target));
  }
  return {};
}

void check_same_count(const InferContext& c, const SymbolicShape& input,
                      const SymbolicShape& target) {
  const Dim from = product(input), to = product(target);
  if (from.known() && to.known() && from.size != to.size) {
    c.fail("a shape for " + to_string(input) + ", got " + to_string(target));
  }
}

std::vector<int64_t> unsqueezed_axes(const InferContext& c, const std::vector<int64_t>& axes,
                                     size_t rank) {
  std::vector<int64_t> positions;
  for (const int64_t a : axes) positions.push_back(c.axis(a, rank));
  std::sort(positions.begin(), positions.end());
  if (std::adjacent_find(positions.begin(), positions.end()) != positions.end())
    c.fail("axes named once");
  return positions;
}

}  // namespace

void concat(InferContext& c) {
  const auto* first = c.shape(0);
  if (!first) return;
  if (first->empty()) c.fail("inputs with dimensions, got a scalar");
  const auto axis = static_cast<size_t>(c.axis(c.node().attrs.integer("axis", 0), first->size()));
  SymbolicShape out = *first;
  IntTensor values;
  bool followed = c.integers(0) != nullptr && first->size() == 1;
  if (followed) values.elements = c.integers(0)->elements;
  for (size_t i = 1; i < c.node().inputs.size(); ++i) {
    const auto* next = c.shape(i);
    if (!next) return;
    if (next->size() != out.size())
      c.fail("inputs of equal rank, got " + to_string(*next) + " beside " + to_string(*first));
    for (size_t d = 0; d < out.size(); ++d) {
      const auto both = d == axis ? add(out[d], (*next)[d]) : merge(out[d], (*next)[d]);
      if (!both)
        c.fail("inputs equal but for the axis, got " + to_string(*next) + " beside " +
               to_string(*first));
      out[d] = *both;
    }
    followed = followed && c.integers(i);
    if (followed)
      values.elements.insert(values.elements.end(), c.integers(i)->elements.begin(),
                             c.integers(i)->elements.end());
  }
  c.set_shape(0, std::move(out));
  if (followed) c.set_integers(0, std::move(values));
}

void flatten(InferContext& c) {
  const auto* shape = c.shape(0);
  if (!shape) return c.set_shape(0, unknown_rank(2));
  const int64_t given = c.node().attrs.integer("axis", 1);
  const auto rank = static_cast<int64_t>(shape->size());
  if (given < -rank || given > rank)
    c.fail("an axis of " + to_string(*shape) + ", got " + std::to_string(given));
  const auto axis = static_cast<size_t>(given < 0 ? given + rank : given);
  const std::span<const Dim> dims(*shape);
  c.set_shape(0, {product(dims.subspan(0, axis)), product(dims.subspan(axis))});
}

void transpose(InferContext& c) {
  const auto* shape = c.shape(0);
  if (!shape) return;
  auto perm = c.node().attrs.integers("perm");
  if (perm.empty()) {
    for (size_t i = shape->size(); i > 0; --i) perm.push_back(static_cast<int64_t>(i - 1));
  }
  if (perm.size() != shape->size()) c.fail("a permutation of " + to_string(*shape));
  SymbolicShape out;
  std::vector<bool> seen(perm.size(), false);
  for (const int64_t p : perm) {
    if (p < 0 || p >= static_cast<int64_t>(perm.size()) || seen[static_cast<size_t>(p)]) {
      c.fail("a permutation of " + to_string(*shape));
    }
    seen[static_cast<size_t>(p)] = true;
    out.push_back((*shape)[static_cast<size_t>(p)]);
  }
  if (perm.size() <= 1) pass_integers(c, perm.empty());
  c.set_shape(0, std::move(out));
}

void squeeze(InferContext& c) {
  const auto* shape = c.shape(0);
  if (!shape) return;
  std::vector<bool> dropped(shape->size(), false);
  if (c.has(1)) {
    const auto axes = c.numbers(1);
    if (!axes) return;
    for (const int64_t a : *axes) {
      const auto axis = static_cast<size_t>(c.axis(a, shape->size()));
      if ((*shape)[axis].known() && (*shape)[axis].size != 1)
        c.fail("axes of size 1, got " + to_string(*shape));
      dropped[axis] = true;
    }
  } else {
    for (size_t i = 0; i < shape->size(); ++i) {
      if (!(*shape)[i].known()) return;
      dropped[i] = (*shape)[i].size == 1;
    }
  }
  SymbolicShape out;
  for (size_t i = 0; i < shape->size(); ++i) {
    if (!dropped[i]) out.push_back((*shape)[i]);
  }
  pass_integers(c, out.empty());
  c.set_shape(0, std::move(out));
}

void unsqueeze(InferContext& c) {
  const auto* shape = c.shape(0);
  const auto axes = c.numbers(1);
  if (!shape || !axes) return;
  SymbolicShape out = *shape;
  for (const int64_t position : unsqueezed_axes(c, *axes, shape->size() + axes->size())) {
    out.insert(out.begin() + position, known_dim(1));
  }
  if (out.size() <= 1) pass_integers(c, false);
  c.set_shape(0, std::move(out));
}

void reshape(InferContext& c) {
  const IntTensor* wanted = c.integers(1);
  const auto* input = c.shape(0);
  if (!wanted) {
    const auto* rank = c.shape(1);
    if (rank && rank->size() == 1 && (*rank)[0].known() && (*rank)[0].size <= 64) {
      c.set_shape(0, unknown_rank(static_cast<size_t>((*rank)[0].size)));
    }
    return;
  }
  const bool keep_zero = c.node().attrs.integer("allowzero", 0) != 0;
  SymbolicShape out;
  std::vector<bool> copied(wanted->elements.size(), false);
  std::optional<size_t> hole;
  for (size_t i = 0; i < wanted->elements.size(); ++i) {
    const Element& e = wanted->elements[i];
    if (e.known && e.value == -1) {
      if (hole) c.fail("one dimension of -1, got more");
      hole = i;
      out.emplace_back();
    } else if (e.known && e.value < -1) {
      c.fail("sizes of -1 or more, got " + std::to_string(e.value));
    } else if (e.known && e.value == 0 && !keep_zero) {
      if (input && i >= input->size())
        c.fail("a size 0 only where the input has a dimension, got one beyond");
      copied[i] = input != nullptr;
      out.push_back(input ? (*input)[i] : Dim{});
    } else {
      out.push_back(dim_of(e));
    }
  }
  if (input) {
    if (hole) out[*hole] = solve_remainder(c, *input, out, copied, *hole);
    else check_same_count(c, *input, out);
  }
  if (out.size() <= 1 && input && input->size() <= 1) pass_integers(c, out.empty());
  c.set_shape(0, std::move(out));
}

void expand(InferContext& c) {
  const auto* input = c.shape(0);
  const IntTensor* target = c.integers(1);
  if (!input) return;
  if (!target) {
    const auto* rank = c.shape(1);
    if (rank && rank->size() == 1 && (*rank)[0].known() && (*rank)[0].size <= 64) {
      c.set_shape(0, unknown_rank(std::max(input->size(), static_cast<size_t>((*rank)[0].size))));
    }
    return;
  }
  SymbolicShape out;
  for (const Element& e : target->elements) out.push_back(dim_of(e));
  if (input->size() > out.size()) out.insert(out.begin(), input->size() - out.size(), known_dim(1));
  const size_t offset = out.size() - input->size();
  for (size_t i = 0; i < input->size(); ++i) {
    const auto both = broadcast((*input)[i], out[offset + i]);
    if (!both) c.fail("a shape " + to_string(*input) + " stretches to, got " + to_string(out));
    out[offset + i] = *both;
  }
  if (out.size() == 1 && out[0].known() && out[0].size <= 64 && c.integers(0) &&
      c.integers(0)->elements.size() == 1) {
    c.set_integers(0, {false, std::vector<Element>(static_cast<size_t>(out[0].size),
                                                   c.integers(0)->elements[0])});
  }
  c.set_shape(0, std::move(out));
}

void tile(InferContext& c) {
  const auto* shape = c.shape(0);
  const IntTensor* repeats = c.integers(1);
  if (!shape) return;
  if (!repeats) return c.set_shape(0, unknown_rank(shape->size()));
  if (repeats->elements.size() != shape->size())
    c.fail("one repeat a dimension of " + to_string(*shape));
  SymbolicShape out;
  for (size_t i = 0; i < shape->size(); ++i)
    out.push_back(multiply((*shape)[i], dim_of(repeats->elements[i])));
  c.set_shape(0, std::move(out));
}

void pad(InferContext& c) {
  const auto* shape = c.shape(0);
  if (!shape) return;
  const auto pads = c.numbers(1);
  if (!pads || (c.has(3) && !c.numbers(3))) return c.set_shape(0, unknown_rank(shape->size()));
  std::vector<int64_t> axes;
  if (c.has(3)) axes = *c.numbers(3);
  else for (size_t i = 0; i < shape->size(); ++i) axes.push_back(static_cast<int64_t>(i));
  if (pads->size() != 2 * axes.size())
    c.fail("two pads an axis, got " + std::to_string(pads->size()));
  SymbolicShape out = *shape;
  for (size_t i = 0; i < axes.size(); ++i) {
    Dim& dim = out[static_cast<size_t>(c.axis(axes[i], shape->size()))];
    dim = add(dim, checked_add((*pads)[i], (*pads)[i + axes.size()]));
  }
  c.set_shape(0, std::move(out));
}

void depth_to_space(InferContext& c) {
  const auto* shape = c.shape(0);
  if (!shape) return;
  const int64_t block = c.node().attrs.integer("blocksize", 0);
  if (shape->size() != 4 || block <= 0)
    c.fail("an input of 4 dimensions and a positive block size");
  const int64_t area = checked_mul(block, block);
  const Dim& channels = (*shape)[1];
  if (channels.known() && channels.size % area != 0)
    c.fail("channels that the block divides, got " + to_string(*shape));
  c.set_shape(0,
              {(*shape)[0], floor_divide(channels, area), multiply((*shape)[2], known_dim(block)),
               multiply((*shape)[3], known_dim(block))});
}

void space_to_depth(InferContext& c) {
  const auto* shape = c.shape(0);
  if (!shape) return;
  const int64_t block = c.node().attrs.integer("blocksize", 0);
  if (shape->size() != 4 || block <= 0)
    c.fail("an input of 4 dimensions and a positive block size");
  c.set_shape(0, {(*shape)[0], multiply((*shape)[1], known_dim(checked_mul(block, block))),
                  floor_divide((*shape)[2], block), floor_divide((*shape)[3], block)});
}

}  // namespace repquant::shapes
