#include <algorithm>
#include <cmath>
#include <numeric>

#include "repquant/graph/reference/kernels.h"

namespace repquant::reference {
namespace {

std::byte* bytes_of(Tensor& t) { return static_cast<std::byte*>(t.data()); }
const std::byte* bytes_of(const Tensor& t) { return static_cast<const std::byte*>(t.data()); }

int64_t product_of(const Shape& shape, size_t from, size_t to) {
  return std::accumulate(shape.begin() + static_cast<ptrdiff_t>(from),
                         shape.begin() + static_cast<ptrdiff_t>(to), int64_t{1},
                         std::multiplies<>());
}

Outputs shape_of(const Node& node, const Tensor& x) {
  const auto clamp = [&](int64_t v) {
    return std::clamp<int64_t>(v < 0 ? v + x.rank() : v, 0, x.rank());
  };
  const int64_t start = clamp(node.attrs.integer("start", 0));
  const int64_t end = std::max(start, clamp(node.attrs.integer("end", x.rank())));
  const std::vector<int64_t> dims(x.shape().begin() + start, x.shape().begin() + end);
  return one(Tensor::of<int64_t>({end - start}, dims));
}

Outputs gather(const Node& node, Inputs inputs) {
  const Tensor *x = inputs[0], *at = input(inputs, 1);
  const auto axis = normal_axis(node.attrs.integer("axis", 0), x->rank());
  const auto index = at ? to_integers(*at) : std::nullopt;
  if (!axis || !index) return std::nullopt;
  const auto a = static_cast<size_t>(*axis);
  const int64_t outer = product_of(x->shape(), 0, a), extent = x->shape()[a];
  const size_t inner =
      static_cast<size_t>(product_of(x->shape(), a + 1, x->shape().size())) * size_of(x->dtype());
  Shape shape(x->shape().begin(), x->shape().begin() + *axis);
  shape.insert(shape.end(), at->shape().begin(), at->shape().end());
  shape.insert(shape.end(), x->shape().begin() + *axis + 1, x->shape().end());
  if (too_large(shape)) return std::nullopt;
  Tensor out(x->dtype(), shape);
  if (inner == 0) return one(std::move(out));
  std::byte* to = bytes_of(out);
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i : *index) {
      if (i < 0) i += extent;
      if (i < 0 || i >= extent) return std::nullopt;
      std::memcpy(to, bytes_of(*x) + static_cast<size_t>(o * extent + i) * inner, inner);
      to += inner;
    }
  }
  return one(std::move(out));
}

Outputs concat(const Node& node, Inputs inputs) {
  const auto axis = normal_axis(node.attrs.integer("axis", 0), inputs[0]->rank());
  if (!axis) return std::nullopt;
  const auto a = static_cast<size_t>(*axis);
  Shape shape = inputs[0]->shape();
  shape[a] = 0;
  for (const Tensor* part : inputs) {
    if (!part || part->rank() != inputs[0]->rank() || part->dtype() != inputs[0]->dtype())
      return std::nullopt;
    for (size_t d = 0; d < shape.size(); ++d) {
      if (d != a && part->shape()[d] != shape[d]) return std::nullopt;
    }
    shape[a] += part->shape()[a];
  }
  Tensor out(inputs[0]->dtype(), shape);
  std::byte* to = bytes_of(out);
  for (int64_t o = 0; o < product_of(shape, 0, a); ++o) {
    for (const Tensor* part : inputs) {
      const size_t run =
          static_cast<size_t>(product_of(part->shape(), a, shape.size())) * size_of(out.dtype());
      if (run == 0) continue;
      std::memcpy(to, bytes_of(*part) + static_cast<size_t>(o) * run, run);
      to += run;
    }
  }
  return one(std::move(out));
}

Outputs slice(const Node& node, Inputs inputs) {
  const Tensor& x = *inputs[0];
  const auto starts = integers_of(node, inputs, 1, "starts"),
             ends = integers_of(node, inputs, 2, "ends");
  auto axes = integers_of(node, inputs, 3, "axes"), steps = integers_of(node, inputs, 4, "steps");
  if (!starts || !ends || starts->size() != ends->size()) return std::nullopt;
  if (!axes) {
    axes.emplace(starts->size());
    std::iota(axes->begin(), axes->end(), 0);
  }
  if (!steps) steps.emplace(starts->size(), 1);
  if (axes->size() != starts->size() || steps->size() != starts->size()) return std::nullopt;
  Shape shape = x.shape();
  auto strides = row_major_strides(shape);
  int64_t offset = 0;
  for (size_t i = 0; i < axes->size(); ++i) {
    const auto axis = normal_axis((*axes)[i], x.rank());
    const int64_t step = (*steps)[i];
    if (!axis || step == 0 || step == INT64_MIN) return std::nullopt;
    const auto a = static_cast<size_t>(*axis);
    const int64_t n = x.shape()[a];
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    const auto bound = [&](int64_t v) { return std::clamp(v < 0 ? v + n : v, low, high); };
    const int64_t first = bound((*starts)[i]), last = bound((*ends)[i]);
    const int64_t span = step > 0 ? last - first : first - last, size = step > 0 ? step : -step;
    shape[a] = span <= 0 ? 0 : (span - 1) / size + 1;
    if (shape[a] > 0) offset += first * strides[a];
    strides[a] *= step;
  }
  return one(strided_copy(x, shape, strides, offset));
}

Outputs reshaped(const Tensor& x, Shape shape) {
  if (element_count(shape) != x.size()) return std::nullopt;
  Tensor out = x;
  out.reshape(std::move(shape));
  return one(std::move(out));
}

Outputs squeeze(const Node& node, Inputs inputs) {
  const Tensor& x = *inputs[0];
  const auto axes = integers_of(node, inputs, 1, "axes");
  std::vector<bool> drop(x.shape().size(), false);
  for (size_t d = 0; !axes && d < drop.size(); ++d) drop[d] = x.shape()[d] == 1;
  for (size_t i = 0; axes && i < axes->size(); ++i) {
    const auto axis = normal_axis((*axes)[i], x.rank());
    if (!axis || x.shape()[static_cast<size_t>(*axis)] != 1) return std::nullopt;
    drop[static_cast<size_t>(*axis)] = true;
  }
  Shape shape;
  for (size_t d = 0; d < drop.size(); ++d) {
    if (!drop[d]) shape.push_back(x.shape()[d]);
  }
  return reshaped(x, std::move(shape));
}

Outputs unsqueeze(const Node& node, Inputs inputs) {
  const Tensor& x = *inputs[0];
  const auto axes = integers_of(node, inputs, 1, "axes");
  if (!axes) return std::nullopt;
  const size_t rank = x.shape().size() + axes->size();
  std::vector<bool> added(rank, false);
  for (const int64_t v : *axes) {
    const auto axis = normal_axis(v, static_cast<int64_t>(rank));
    if (!axis || added[static_cast<size_t>(*axis)]) return std::nullopt;
    added[static_cast<size_t>(*axis)] = true;
  }
  Shape shape;
  auto next = x.shape().begin();
  for (size_t d = 0; d < rank; ++d) shape.push_back(added[d] ? 1 : *next++);
  return reshaped(x, std::move(shape));
}

Outputs reshape(const Node& node, Inputs inputs) {
  const Tensor& x = *inputs[0];
  auto shape = integers_of(node, inputs, 1, "shape");
  if (!shape) return std::nullopt;
  const bool keep_zero = node.attrs.integer("allowzero", 0) != 0;
  int64_t known = 1;
  ptrdiff_t open = -1;
  for (size_t d = 0; d < shape->size(); ++d) {
    int64_t& size = (*shape)[d];
    if (size == 0 && !keep_zero) {
      if (d >= x.shape().size()) return std::nullopt;
      size = x.shape()[d];
    }
    if (size < -1 || (size == -1 && open >= 0)) return std::nullopt;
    if (size == -1) open = static_cast<ptrdiff_t>(d);
    else known *= size;
  }
  if (open >= 0) {
    if (known == 0 || x.size() % known != 0) return std::nullopt;
    (*shape)[static_cast<size_t>(open)] = x.size() / known;
  }
  return reshaped(x, std::move(*shape));
}

Outputs flatten(const Node& node, const Tensor& x) {
  int64_t axis = node.attrs.integer("axis", 1);
  if (axis < 0) axis += x.rank();
  if (axis < 0 || axis > x.rank()) return std::nullopt;
  const auto a = static_cast<size_t>(axis);
  return reshaped(x, {product_of(x.shape(), 0, a), product_of(x.shape(), a, x.shape().size())});
}

Outputs transpose(const Node& node, const Tensor& x) {
  std::vector<int64_t> perm = node.attrs.integers("perm");
  if (perm.empty()) {
    perm.resize(x.shape().size());
    std::iota(perm.rbegin(), perm.rend(), 0);
  }
  if (perm.size() != x.shape().size()) return std::nullopt;
  const auto own = row_major_strides(x.shape());
  Shape shape;
  std::vector<int64_t> strides;
  for (const int64_t p : perm) {
    const auto axis = normal_axis(p, x.rank());
    if (!axis) return std::nullopt;
    shape.push_back(x.shape()[static_cast<size_t>(*axis)]);
    strides.push_back(own[static_cast<size_t>(*axis)]);
  }
  if (element_count(shape) != x.size()) return std::nullopt;
  return one(strided_copy(x, shape, strides, 0));
}

Outputs expand(const Node& node, Inputs inputs) {
  const auto target = integers_of(node, inputs, 1, "shape");
  if (!target) return std::nullopt;
  const auto shape = broadcast(inputs[0]->shape(), *target);
  return shape ? one(expand_to(*inputs[0], *shape)) : std::nullopt;
}

Outputs tile(const Node& node, Inputs inputs) {
  const Tensor& x = *inputs[0];
  const auto repeats = integers_of(node, inputs, 1, "repeats");
  if (!repeats || repeats->size() != x.shape().size()) return std::nullopt;
  Shape doubled, shape;
  std::vector<int64_t> strides;
  const auto own = row_major_strides(x.shape());
  for (size_t d = 0; d < repeats->size(); ++d) {
    if ((*repeats)[d] < 0 || (*repeats)[d] > INT32_MAX) return std::nullopt;
    doubled.insert(doubled.end(), {(*repeats)[d], x.shape()[d]});
    strides.insert(strides.end(), {0, own[d]});
    shape.push_back((*repeats)[d] * x.shape()[d]);
  }
  if (too_large(shape) || too_large(doubled)) return std::nullopt;
  Tensor out = strided_copy(x, doubled, strides, 0);
  out.reshape(shape);
  return one(std::move(out));
}

Outputs split(const Node& node, Inputs inputs) {
  const Tensor& x = *inputs[0];
  const auto axis = normal_axis(node.attrs.integer("axis", 0), x.rank());
  if (!axis) return std::nullopt;
  const auto a = static_cast<size_t>(*axis);
  auto sizes = integers_of(node, inputs, 1, "split");
  if (!sizes) {
    const auto count = static_cast<int64_t>(node.outputs.size());
    if (count == 0) return std::nullopt;
    const int64_t chunk = (x.shape()[a] + count - 1) / count;
    sizes.emplace(node.outputs.size(), chunk);
    sizes->back() = x.shape()[a] - chunk * (count - 1);
  }
  if (std::accumulate(sizes->begin(), sizes->end(), int64_t{0}) != x.shape()[a])
    return std::nullopt;
  const auto strides = row_major_strides(x.shape());
  std::vector<Tensor> outputs;
  int64_t at = 0;
  for (const int64_t size : *sizes) {
    if (size < 0) return std::nullopt;
    Shape shape = x.shape();
    shape[a] = size;
    outputs.push_back(strided_copy(x, shape, strides, size == 0 ? 0 : at * strides[a]));
    at += size;
  }
  return outputs;
}

Outputs range(Inputs inputs) {
  const Tensor *a = input(inputs, 0), *b = input(inputs, 1), *c = input(inputs, 2);
  if (!a || !b || !c || a->size() != 1 || b->size() != 1 || c->size() != 1) return std::nullopt;
  const auto start = to_doubles(*a), limit = to_doubles(*b), step = to_doubles(*c);
  if (!start || !limit || !step || step->front() == 0) return std::nullopt;
  std::vector<double> values;
  const double count = std::max(0.0, std::ceil((limit->front() - start->front()) / step->front()));
  if (!(count <= 1e7)) return std::nullopt;
  for (double i = 0; i < count; ++i) values.push_back(start->front() + i * step->front());
  return one(from_doubles(a->dtype(), {static_cast<int64_t>(values.size())}, values));
}

Outputs constant_of_shape(const Node& node, Inputs inputs) {
  const auto shape = to_integers(*inputs[0]);
  if (!shape || std::any_of(shape->begin(), shape->end(), [](int64_t v) { return v < 0; }))
    return std::nullopt;
  const Tensor* value = node.attrs.tensor("value");
  const Tensor zero = Tensor::scalar<float>(0.0F);
  if (value && value->size() != 1) return std::nullopt;
  Tensor source = value ? *value : zero;
  source.reshape({});
  return one(expand_to(source, *shape));
}

Outputs trilu(const Node& node, Inputs inputs) {
  Tensor out = *inputs[0];
  if (out.rank() < 2) return std::nullopt;
  const auto k = integers_of(node, inputs, 1, "k");
  const int64_t shift = k && k->size() == 1 ? k->front() : 0;
  const bool upper = node.attrs.integer("upper", 1) != 0;
  const int64_t rows = out.shape()[out.shape().size() - 2], cols = out.shape().back();
  const size_t width = size_of(out.dtype());
  for (int64_t i = 0; i < out.size(); ++i) {
    const int64_t r = i / cols % rows, c = i % cols;
    const bool keep = upper ? c - r >= shift : c - r <= shift;
    if (!keep) std::memset(bytes_of(out) + static_cast<size_t>(i) * width, 0, width);
  }
  return one(std::move(out));
}

Outputs scatter_nd(const Node& node, Inputs inputs) {
  const Tensor *at = input(inputs, 1), *updates = input(inputs, 2);
  if (!at || !updates || at->rank() == 0 || node.attrs.text("reduction", "none") != "none")
    return std::nullopt;
  Tensor out = *inputs[0];
  const auto index = to_integers(*at);
  const auto depth = static_cast<size_t>(at->shape().back());
  if (!index || updates->dtype() != out.dtype() || depth == 0 || depth > out.shape().size())
    return std::nullopt;
  const auto strides = row_major_strides(out.shape());
  const int64_t count = at->size() / at->shape().back();
  const size_t run = static_cast<size_t>(product_of(out.shape(), depth, out.shape().size())) *
                     size_of(out.dtype());
  if (run == 0 || updates->bytes() != static_cast<size_t>(count) * run) return std::nullopt;
  for (int64_t i = 0; i < count; ++i) {
    int64_t where = 0;
    for (size_t d = 0; d < depth; ++d) {
      int64_t v = (*index)[static_cast<size_t>(i) * depth + d];
      if (v < 0) v += out.shape()[d];
      if (v < 0 || v >= out.shape()[d]) return std::nullopt;
      where += v * strides[d];
    }
    std::memcpy(bytes_of(out) + static_cast<size_t>(where) * size_of(out.dtype()),
                bytes_of(*updates) + static_cast<size_t>(i) * run, run);
  }
  return one(std::move(out));
}

}   // namespace

Outputs movement(const Node& node, Inputs inputs) {
  if (inputs.empty() || !inputs[0]) return std::nullopt;
  switch (node.op) {
    case OpKind::kShape: return shape_of(node, *inputs[0]);
    case OpKind::kSize: return one(Tensor::scalar<int64_t>(inputs[0]->size()));
    case OpKind::kGather: return gather(node, inputs);
    case OpKind::kConcat: return concat(node, inputs);
    case OpKind::kSlice: return slice(node, inputs);
    case OpKind::kSqueeze: return squeeze(node, inputs);
    case OpKind::kUnsqueeze: return unsqueeze(node, inputs);
    case OpKind::kReshape: return reshape(node, inputs);
    case OpKind::kFlatten: return flatten(node, *inputs[0]);
    case OpKind::kTranspose: return transpose(node, *inputs[0]);
    case OpKind::kExpand: return expand(node, inputs);
    case OpKind::kTile: return tile(node, inputs);
    case OpKind::kSplit: return split(node, inputs);
    case OpKind::kRange: return range(inputs);
    case OpKind::kConstantOfShape: return constant_of_shape(node, inputs);
    case OpKind::kTrilu: return trilu(node, inputs);
    case OpKind::kScatterND: return scatter_nd(node, inputs);
    default: return std::nullopt;
  }
}

}   // namespace repquant::reference
