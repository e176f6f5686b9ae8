// Steps between f32 buffers, and from the integer inputs of a plan.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "repquant/core/format/functions.h"
#include "repquant/core/plan_verifier.h"

namespace repquant::plan_checks {
namespace {

// NumPy broadcasting; empty where the shapes do not fit.
Shape broadcast(const Shape& a, const Shape& b) {
  Shape result(std::max(a.size(), b.size()), 1);
  for (size_t i = 0; i < result.size(); ++i) {
    const int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t y = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (x != y && x != 1 && y != 1) return {};
    result[result.size() - 1 - i] = x == 1 ? y : x;
  }
  return result;
}

template <class Names> std::vector<std::string> names(const Names& all) {
  return {std::begin(all), std::end(all)};
}

}  // namespace

void Verifier::integers(const Buffer& buffer) const {
  require(buffer.dtype == DType::kI64 || buffer.dtype == DType::kI32,
          fmt::format("buffer \"{}\" of I64 or I32", buffer.name),
          std::string(repquant::name_of(buffer.dtype)));
}

void Verifier::function(std::initializer_list<const char*> allowed) const {
  std::vector<std::string> kinds;
  for (const FunctionLaw& law : kFunctionLaws) kinds.emplace_back(law.name);
  const FunctionKind kind = *function_kind(text("kind", kinds));
  const int parameters = function_law(kind).parameters;
  roles(allowed);
  require(step_->tensors.contains("p") == (parameters > 0),
          fmt::format("{} parameters \"p\"", parameters), parameters > 0 ? "none" : "some");
  if (parameters == 0) return;
  const auto p = finite("p", {parameters});
  require(kind != FunctionKind::kClip || p[0] <= p[1], "bounds in order",
          fmt::format("{} and {}", p[0], p.back()));
}

void Verifier::activation() {
  inputs(1, 1);
  type(in(0), DType::kF32);
  copies(in(0), out());
  shape(out(), in(0).item_shape);
  function({"p"});
}

void Verifier::binary() {
  inputs(1, 2);
  type(in(0), DType::kF32);
  type(out(), DType::kF32);
  text("kind", names(kBinaryNames));
  Shape other;
  if (step_->in.size() == 2) {
    roles({});
    type(in(1), DType::kF32);
    other = in(1).item_shape;
  } else {
    roles({"const"});
    other = plan_.tensor(*step_, "const").shape();
    require(!other.empty() && other.size() <= 8, "const of rank 1 to 8", to_string(other));
    finite("const", other);
  }
  const Shape expected = broadcast(in(0).item_shape, other);
  require(!expected.empty(), "operands that broadcast",
          fmt::format("{} and {}", to_string(in(0).item_shape), to_string(other)));
  shape(out(), expected);
}

void Verifier::concat() {
  inputs(2, 16);
  roles({});
  Shape expected = in(0).item_shape;
  const auto axis =
      static_cast<size_t>(integer("axis", 0, static_cast<int64_t>(expected.size()) - 1));
  expected[axis] = 0;
  for (size_t i = 0; i < step_->in.size(); ++i) {
    copies(in(i), out());
    Shape rest = in(i).item_shape;
    require(rest.size() == expected.size(), fmt::format("inputs of rank {}", expected.size()),
            to_string(rest));
    expected[axis] += rest[axis];
    rest[axis] = expected[axis];
    require(rest == expected, fmt::format("inputs that differ along axis {} only", axis),
            to_string(in(i).item_shape));
  }
  shape(out(), expected);
}

void Verifier::reduce() {
  inputs(1, 1);
  roles({});
  type(in(0), DType::kF32);
  type(out(), DType::kF32);
  text("kind", names(kReduceNames));
  const std::vector<int64_t>& axes = list("axes");
  const Shape& from = in(0).item_shape;
  require(axes.size() == 2 && axes[0] >= 0 && axes[0] <= axes[1] &&
              axes[1] < static_cast<int64_t>(from.size()),
          fmt::format("\"axes\" {{first, last}} within rank {}", from.size()),
          fmt::format("{}", axes.size()));
  Shape kept = from, removed = from;
  for (int64_t i = axes[0]; i <= axes[1]; ++i) kept[static_cast<size_t>(i)] = 1;
  removed.erase(removed.begin() + axes[0], removed.begin() + axes[1] + 1);
  if (removed.empty()) removed = {1};
  require(out().item_shape == kept || out().item_shape == removed,
          fmt::format("an output {} or {}", to_string(removed), to_string(kept)),
          to_string(out().item_shape));
}

void Verifier::gather_rows() {
  inputs(1, 1);
  roles({"table"});
  integers(in(0));
  type(out(), DType::kF32);
  const Shape rows = plan_.tensor(*step_, "table").shape();
  require(rows.size() == 2 && rows[0] >= 1 && rows[1] >= 1, "a table [V, C]", to_string(rows));
  finite("table", rows);
  Shape expected = in(0).item_shape;
  expected.push_back(rows[1]);
  shape(out(), expected);
}

void Verifier::cast() {
  inputs(1, 1);
  roles({});
  integers(in(0));
  type(out(), DType::kF32);
  shape(out(), in(0).item_shape);
}

}  // namespace repquant::plan_checks
