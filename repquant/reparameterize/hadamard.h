#pragma once
// Orthogonal matrices for offline rotations.
#include <cstdint>
#include <optional>

#include <torch/torch.h>

namespace repquant::reparameterize {

// H_n / sqrt(n) in double for n = 2^k or 12 * 2^k (Kronecker products of the 12 x 12 Paley matrix
// with Sylvester's); nullopt for other n. Orthogonal.
std::optional<at::Tensor> hadamard(int64_t n);
// diag(random signs) * hadamard(n); the signs depend on n and the seed only.
std::optional<at::Tensor> random_rotation(int64_t n, uint64_t seed);

}  // namespace repquant::reparameterize
