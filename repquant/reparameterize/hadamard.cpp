#include "repquant/reparameterize/hadamard.h"

#include <cmath>

#include "repquant/core/random.h"

namespace repquant::reparameterize {
namespace {

// Paley construction of order 12 from the quadratic residues modulo 11: {1, 3, 4, 5, 9}.
at::Tensor paley12() {
  at::Tensor h = at::ones({12, 12}, at::kDouble);
  double* data = h.data_ptr<double>();
  for (int i = 1; i < 12; ++i) {
    data[i * 12] = -1.0;
    for (int j = 1; j < 12; ++j) {
      const int d = ((j - i) % 11 + 11) % 11;
      const bool residue = d == 1 || d == 3 || d == 4 || d == 5 || d == 9;
      data[i * 12 + j] = d == 0 ? 1.0 : (residue ? 1.0 : -1.0);
    }
  }
  return h;
}

}  // namespace

std::optional<at::Tensor> hadamard(int64_t n) {
  if (n < 1) return std::nullopt;
  int64_t rest = n;
  while (rest % 2 == 0) rest /= 2;
  at::Tensor h = at::ones({1, 1}, at::kDouble);
  int64_t size = 1;
  if (rest == 3 && n % 12 == 0) {
    h = paley12();
    size = 12;
  } else if (rest != 1) {
    return std::nullopt;
  }
  const at::Tensor two = at::tensor({1.0, 1.0, 1.0, -1.0}, at::kDouble).reshape({2, 2});
  for (; size < n; size *= 2) h = at::kron(h, two);
  return h / std::sqrt(static_cast<double>(n));
}

std::optional<at::Tensor> random_rotation(int64_t n, uint64_t seed) {
  const std::optional<at::Tensor> h = hadamard(n);
  if (!h) return std::nullopt;
  uint64_t state = seed * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(n);
  at::Tensor signs = at::empty({n, 1}, at::kDouble);
  for (int64_t i = 0; i < n; ++i)
    signs.data_ptr<double>()[i] = (splitmix64(state) & 1) != 0 ? 1.0 : -1.0;
  return signs * *h;
}

}  // namespace repquant::reparameterize
