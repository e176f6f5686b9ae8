#pragma once
// Pieces of the scalar evaluator. Every function returns nullopt where it cannot answer.
#include <optional>
#include <span>
#include <vector>

#include "repquant/graph/graph.h"

namespace repquant::reference {

using Inputs = std::span<const Tensor* const>;
using Outputs = std::optional<std::vector<Tensor>>;

inline const Tensor* input(Inputs inputs, size_t index) {
  return index < inputs.size() ? inputs[index] : nullptr;
}
inline Outputs one(std::optional<Tensor> tensor) {
  if (!tensor) return std::nullopt;
  std::vector<Tensor> all;
  all.push_back(std::move(*tensor));
  return all;
}

bool is_float(DType dtype);     // f32 or f64: what the evaluator computes with
bool is_integer(DType dtype);   // any integer type, not bool

// Element access by conversion. nullopt for f16 and bf16.
std::optional<std::vector<double>> to_doubles(const Tensor& tensor);
std::optional<std::vector<int64_t>> to_integers(const Tensor& tensor);   // integers and bool only
std::optional<Tensor> from_doubles(DType dtype, Shape shape, std::span<const double> values);
Tensor from_integers(DType dtype, Shape shape, std::span<const int64_t> values);   // wraps
std::optional<Tensor> cast(const Tensor& tensor, DType to);

std::optional<int64_t> normal_axis(int64_t axis, int64_t rank);
// The integers of input `index`, or of attribute `name`, or nothing.
std::optional<std::vector<int64_t>> integers_of(const Node& node, Inputs inputs, size_t index,
                                                const std::string& name);
// More elements than any result here may have (2^28), or a negative size: files are not trusted.
bool too_large(std::span<const int64_t> shape);
std::optional<Shape> broadcast(const Shape& a, const Shape& b);
std::vector<int64_t> row_major_strides(const Shape& shape);
// out[i0, i1, ..] = in[offset + sum i_k * strides_k], strides in elements.
Tensor strided_copy(const Tensor& in, const Shape& shape, std::span<const int64_t> strides,
                    int64_t offset);
std::optional<Tensor> expand_to(const Tensor& in, const Shape& shape);

// One file each. nullopt also means "not an op of this family".
Outputs element_wise(const Node& node, Inputs inputs);
Outputs movement(const Node& node, Inputs inputs);
Outputs reduction(const Node& node, Inputs inputs);
Outputs product(const Node& node, Inputs inputs);
Outputs composite(const Node& node, Inputs inputs);
Outputs convolution(const Node& node, Inputs inputs);
Outputs batch_norm(const Node& node, Inputs inputs);

// C[m, n] (+)= A[m, k] B[k, n] for one matrix, in double.
void multiply(const double* a, const double* b, double* c, int64_t m, int64_t k, int64_t n);
// In place over rows of `n`: subtract the maximum, exponentiate, divide by the sum.
void softmax_rows(std::span<double> values, int64_t n);

}   // namespace repquant::reference
