// Gathering and scattering by index, sorting, ranges.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

// Negative indices count from the end of an axis of `n`.
at::Tensor from_begin(const at::Tensor& indices, int64_t n) {
  const at::Tensor index = indices.to(at::kLong);
  return at::where(index < 0, index + n, index);
}

Tensors gather(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const at::Tensor& indices = required(node, in, 1);
  const int64_t axis = normal_axis(node, node.attrs.integer("axis", 0), x.dim());
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().begin() + axis);
  shape.insert(shape.end(), indices.sizes().begin(), indices.sizes().end());
  shape.insert(shape.end(), x.sizes().begin() + axis + 1, x.sizes().end());
  return {x.index_select(axis, from_begin(indices, x.size(axis)).flatten()).reshape(shape)};
}

Tensors gather_elements(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t axis = normal_axis(node, node.attrs.integer("axis", 0), x.dim());
  return {x.gather(axis, from_begin(required(node, in, 1), x.size(axis)))};
}

// Row numbers, in data flattened over axes first .. first + k, of index tuples [.., k].
at::Tensor linear_index(const Node& node, const at::Tensor& tuples, at::IntArrayRef sizes) {
  at::Tensor result =
      at::zeros(tuples.sizes().slice(0, static_cast<size_t>(tuples.dim() - 1)), at::kLong);
  for (size_t i = 0; i < sizes.size(); ++i) {
    const at::Tensor index = from_begin(tuples.select(-1, static_cast<int64_t>(i)), sizes[i]);
    if (index.numel() > 0 && (index.lt(0).any() | index.ge(sizes[i]).any()).item<bool>()) {
      malformed(node, "an index outside of axis " + std::to_string(i));
    }
    result = result * sizes[i] + index;
  }
  return result;
}

int64_t product(at::IntArrayRef sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

Tensors gather_nd(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const at::Tensor& tuples = required(node, in, 1);
  const int64_t batch = node.attrs.integer("batch_dims", 0);
  const int64_t k = tuples.dim() > 0 ? tuples.size(-1) : 0;
  if (batch < 0 || tuples.dim() < 1 || batch >= tuples.dim() || batch + k > x.dim()) {
    malformed(node, "indices of shape " + to_string(tuples.sizes()) + " do not fit");
  }
  const auto indexed = x.sizes().slice(static_cast<size_t>(batch), static_cast<size_t>(k));
  const auto rest = x.sizes().slice(static_cast<size_t>(batch + k));
  const int64_t batches = product(x.sizes().slice(0, static_cast<size_t>(batch)));
  at::Tensor rows = linear_index(node, tuples, indexed);
  const auto leading = rows.sizes().vec();
  rows = rows.reshape({batches, batches == 0 ? 0 : rows.numel() / batches});
  rows = rows + at::arange(batches, at::kLong).unsqueeze(1) * product(indexed);
  auto shape = leading;
  shape.insert(shape.end(), rest.begin(), rest.end());
  return {x.reshape({batches * product(indexed), product(rest)})
              .index_select(0, rows.flatten())
              .reshape(shape)};
}

std::string reduction_name(const Node& node) {
  const std::string reduction = node.attrs.text("reduction", "none");
  if (reduction == "none") return "";
  if (reduction == "add") return "sum";
  if (reduction == "mul") return "prod";
  if (reduction == "max") return "amax";
  if (reduction == "min") return "amin";
  malformed(node, "unknown reduction \"" + reduction + "\"");
}

Tensors scatter_elements(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t axis = normal_axis(node, node.attrs.integer("axis", 0), x.dim());
  const at::Tensor index = from_begin(required(node, in, 1), x.size(axis));
  const std::string reduction = reduction_name(node);
  if (reduction.empty()) return {x.scatter(axis, index, required(node, in, 2))};
  return {x.scatter_reduce(axis, index, required(node, in, 2), reduction, true)};
}

Tensors scatter_nd(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const at::Tensor& tuples = required(node, in, 1);
  const int64_t k = tuples.dim() > 0 ? tuples.size(-1) : 0;
  if (tuples.dim() < 1 || k > x.dim()) malformed(node, "index tuples longer than the rank");
  const auto indexed = x.sizes().slice(0, static_cast<size_t>(k));
  const int64_t rest = product(x.sizes().slice(static_cast<size_t>(k)));
  const at::Tensor rows = linear_index(node, tuples, indexed).flatten();
  const at::Tensor flat = x.reshape({product(indexed), rest});
  const at::Tensor updates = required(node, in, 2).reshape({rows.numel(), rest});
  const std::string reduction = reduction_name(node);
  if (reduction.empty()) return {flat.index_copy(0, rows, updates).reshape(x.sizes())};
  const at::Tensor index = rows.unsqueeze(1).expand({rows.numel(), rest});
  return {flat.scatter_reduce(0, index, updates, reduction, true).reshape(x.sizes())};
}

Tensors compress(const Node& node, Inputs in) {
  const bool flat = !node.attrs.has("axis");
  const at::Tensor x = flat ? required(node, in, 0).flatten() : required(node, in, 0);
  const int64_t axis = flat ? 0 : normal_axis(node, node.attrs.integer("axis", 0), x.dim());
  return {x.index_select(axis, at::nonzero(required(node, in, 1)).flatten())};
}

Tensors non_zero(const Node& node, Inputs in) { return {at::nonzero(required(node, in, 0)).t()}; }

// Indices outside of [-depth, depth) leave their row at the off value.
Tensors one_hot(const Node& node, Inputs in) {
  const int64_t depth = to_ints(required(node, in, 1)).at(0);
  const at::Tensor index = from_begin(required(node, in, 0), depth);
  const at::Tensor& values = required(node, in, 2);
  const int64_t axis = normal_axis(node, node.attrs.integer("axis", -1), index.dim() + 1);
  std::vector<int64_t> shape(static_cast<size_t>(index.dim()) + 1, 1);
  shape[static_cast<size_t>(axis)] = depth;
  const at::Tensor hot = index.unsqueeze(axis) == at::arange(depth, at::kLong).reshape(shape);
  return {at::where(hot, values.select(0, 1), values.select(0, 0))};
}

Tensors range(const Node& node, Inputs in) {
  const at::Tensor& start = required(node, in, 0);
  const double first = start.item<double>(), limit = required(node, in, 1).item<double>();
  const double step = required(node, in, 2).item<double>();
  if (step == 0) malformed(node, "a step of zero");
  const double count = std::max(0.0, std::ceil((limit - first) / step));
  if (!(count < 1e9)) malformed(node, "a range of " + std::to_string(count) + " elements");
  const at::Tensor ramp =
      at::arange(static_cast<int64_t>(count), at::kLong).to(start.scalar_type());
  return {ramp * required(node, in, 2).reshape({}) + start.reshape({})};
}

Tensors reverse_sequence(const Node& node, Inputs in) {
  const int64_t batch_axis = node.attrs.integer("batch_axis", 1);
  if (batch_axis + node.attrs.integer("time_axis", 0) != 1) malformed(node, "axes must be 0 and 1");
  const at::Tensor& given = required(node, in, 0);
  const at::Tensor x = batch_axis == 0 ? given : given.transpose(0, 1);  // [B, T, ..]
  const at::Tensor length = required(node, in, 1).to(at::kLong).unsqueeze(1);
  const at::Tensor t = at::arange(x.size(1), at::kLong).unsqueeze(0);
  at::Tensor index = at::where(t < length, length - 1 - t, t);
  for (int64_t i = 2; i < x.dim(); ++i) index = index.unsqueeze(-1);
  const at::Tensor y = x.gather(1, index.expand(x.sizes()));
  return {batch_axis == 0 ? y : y.transpose(0, 1)};
}

Tensors arg_extreme(const Node& node, Inputs in, bool largest) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t axis = normal_axis(node, node.attrs.integer("axis", 0), x.dim());
  const bool keep = node.attrs.integer("keepdims", 1) != 0;
  const bool last = node.attrs.integer("select_last_index", 0) != 0;
  const at::Tensor seen = last ? x.flip(axis) : x;
  const at::Tensor index = largest ? seen.argmax(axis, keep) : seen.argmin(axis, keep);
  return {last ? x.size(axis) - 1 - index : index};
}

Tensors arg_max(const Node& node, Inputs in) { return arg_extreme(node, in, true); }
Tensors arg_min(const Node& node, Inputs in) { return arg_extreme(node, in, false); }

// A stable sort: among equal values the lower index comes first, as ONNX asks.
Tensors top_k(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t axis = normal_axis(node, node.attrs.integer("axis", -1), x.dim());
  const auto given = ints_of(node, in, 1, "");
  const int64_t k = given.empty() ? node.attrs.integer("k", 1) : given[0];
  if (k < 0 || k > x.size(axis)) malformed(node, "k = " + std::to_string(k) + " exceeds the axis");
  const bool largest = node.attrs.integer("largest", 1) != 0;
  const auto [values, indices] = at::sort(x, true, axis, largest);
  return {values.slice(axis, 0, k), indices.slice(axis, 0, k)};
}

Tensors cum_sum(const Node& node, Inputs in) {
  at::Tensor x = required(node, in, 0);
  const int64_t axis = normal_axis(node, to_ints(required(node, in, 1)).at(0), x.dim());
  const bool reverse = node.attrs.integer("reverse", 0) != 0;
  if (reverse) x = x.flip(axis);
  at::Tensor sum = at::cumsum(x, axis, x.scalar_type());
  if (node.attrs.integer("exclusive", 0) != 0) {
    sum = at::cat({at::zeros_like(x.slice(axis, 0, 1)), sum.slice(axis, 0, -1)}, axis);
  }
  return {reverse ? sum.flip(axis) : sum};
}

}  // namespace

OpFunction index_op(OpKind op) {
  switch (op) {
    case OpKind::kGather: return gather;
    case OpKind::kGatherElements: return gather_elements;
    case OpKind::kGatherND: return gather_nd;
    case OpKind::kScatterElements: return scatter_elements;
    case OpKind::kScatterND: return scatter_nd;
    case OpKind::kCompress: return compress;
    case OpKind::kNonZero: return non_zero;
    case OpKind::kOneHot: return one_hot;
    case OpKind::kRange: return range;
    case OpKind::kReverseSequence: return reverse_sequence;
    case OpKind::kArgMax: return arg_max;
    case OpKind::kArgMin: return arg_min;
    case OpKind::kTopK: return top_k;
    case OpKind::kCumSum: return cum_sum;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
