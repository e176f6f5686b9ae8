#include "repquant/lower/view.h"

#include <algorithm>
#include <numeric>

namespace repquant::lowering {
namespace {

// A piece of an axis: its place in the buffer's order and its length.
struct Factor {
  int place;
  int64_t size;
};

std::vector<Factor> factors_of(const View& view, const Shape& item) {
  std::vector<Factor> factors;
  if (view.identity()) {
    for (const int64_t size : item) factors.push_back({static_cast<int>(factors.size()), size});
  } else {
    for (const int p : view.perm) factors.push_back({p, view.dims[static_cast<size_t>(p)]});
  }
  std::erase_if(factors, [](const Factor& f) { return f.size == 1; });
  return factors;
}

// Splits factor i into `outer` times the rest.
void split(std::vector<Factor>& factors, size_t i, int64_t outer) {
  const Factor whole = factors[i];
  for (Factor& f : factors) {
    if (f.place > whole.place) ++f.place;
  }
  factors[i] = {whole.place, outer};
  factors.insert(factors.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                 {whole.place + 1, whole.size / outer});
}

// End of each item axis in `factors`, splitting where needed.
std::optional<std::vector<size_t>> axis_ends(std::vector<Factor>& factors, const Shape& item) {
  std::vector<size_t> ends;
  size_t next = 0;
  for (int64_t left : item) {
    while (left > 1) {
      if (next >= factors.size()) return std::nullopt;
      const int64_t size = factors[next].size;
      if (left % size != 0) {
        if (size % left != 0) return std::nullopt;
        split(factors, next, left);
      }
      left /= factors[next].size;
      ++next;
    }
    ends.push_back(next);
  }
  return ends;
}

View canonical(std::vector<Factor> order) {
  for (size_t i = 0; i + 1 < order.size();) {
    // Neighbours in both orders are one axis.
    if (order[i + 1].place == order[i].place + 1) {
      const int gone = order[i + 1].place;
      order[i].size *= order[i + 1].size;
      order.erase(order.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      for (Factor& f : order) f.place -= f.place > gone ? 1 : 0;
    } else {
      ++i;
    }
  }
  if (order.size() <= 1) return {};
  View view;
  view.dims.resize(order.size());
  for (const Factor& f : order) {
    view.dims[static_cast<size_t>(f.place)] = f.size;
    view.perm.push_back(f.place);
  }
  return view;
}

}  // namespace

std::optional<View> transposed(const View& view, const Shape& item, const std::vector<int>& perm) {
  if (view.rows != nullptr) return std::nullopt;
  std::vector<Factor> factors = factors_of(view, item);
  // Places are made dense again: axes of length 1 are gone.
  std::vector<int> places;
  for (const Factor& f : factors) places.push_back(f.place);
  std::sort(places.begin(), places.end());
  for (Factor& f : factors) {
    f.place =
        static_cast<int>(std::lower_bound(places.begin(), places.end(), f.place) - places.begin());
  }
  const auto ends = axis_ends(factors, item);
  if (!ends) return std::nullopt;
  std::vector<Factor> order;
  for (const int axis : perm) {
    const size_t begin = axis == 0 ? 0 : (*ends)[static_cast<size_t>(axis) - 1];
    for (size_t i = begin; i < (*ends)[static_cast<size_t>(axis)]; ++i) order.push_back(factors[i]);
  }
  return canonical(std::move(order));
}

}  // namespace repquant::lowering
