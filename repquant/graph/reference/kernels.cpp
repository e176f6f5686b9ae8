#include "repquant/graph/reference/kernels.h"

#include <cmath>

namespace repquant::reference {
namespace {

template <class Out, class In> void convert(const Tensor& tensor, std::vector<Out>& out) {
  const auto values = tensor.as<In>();
  for (size_t i = 0; i < values.size(); ++i) out[i] = static_cast<Out>(values[i]);
}

template <class Out> bool convert_integers(const Tensor& tensor, std::vector<Out>& out) {
  switch (tensor.dtype()) {
    case DType::kI8: convert<Out, int8_t>(tensor, out); return true;
    case DType::kU8: convert<Out, uint8_t>(tensor, out); return true;
    case DType::kI16: convert<Out, int16_t>(tensor, out); return true;
    case DType::kU16: convert<Out, uint16_t>(tensor, out); return true;
    case DType::kI32: convert<Out, int32_t>(tensor, out); return true;
    case DType::kU32: convert<Out, uint32_t>(tensor, out); return true;
    case DType::kI64: convert<Out, int64_t>(tensor, out); return true;
    case DType::kU64: convert<Out, uint64_t>(tensor, out); return true;
    case DType::kBool: convert<Out, bool>(tensor, out); return true;
    default: return false;
  }
}

template <class To, class From> void store(Tensor& tensor, std::span<const From> values) {
  auto out = tensor.as<To>();
  for (size_t i = 0; i < out.size(); ++i) {
    if constexpr (std::is_same_v<To, bool>) {
      out[i] = values[i] != From{0};
    } else {
      out[i] = static_cast<To>(values[i]);
    }
  }
}

template <class T>
void copy_strided(const T* in, T* out, const Shape& shape, std::span<const int64_t> strides) {
  const size_t rank = shape.size();
  if (rank == 0) {
    *out = *in;
    return;
  }
  const int64_t inner = shape[rank - 1], step = strides[rank - 1];
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < rank; ++d) rows *= shape[d];
  std::vector<int64_t> index(rank, 0);
  int64_t base = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < inner; ++i) *out++ = in[base + i * step];
    for (size_t d = rank - 1; d-- > 0;) {
      base += strides[d];
      if (++index[d] < shape[d]) break;
      base -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
}

// Float to integer as C++ defines it, with everything outside the range left to no chance.
int64_t truncated(double value) {
  if (std::isnan(value)) return 0;
  if (value >= 9.2e18) return INT64_MAX;
  if (value <= -9.2e18) return INT64_MIN;
  return static_cast<int64_t>(value);
}

}   // namespace

bool is_float(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF64; }

bool is_integer(DType dtype) {
  return !is_float(dtype) && dtype != DType::kBool && dtype != DType::kF16 && dtype != DType::kBF16;
}

std::optional<std::vector<double>> to_doubles(const Tensor& tensor) {
  std::vector<double> out(static_cast<size_t>(tensor.size()));
  if (tensor.dtype() == DType::kF32) {
    convert<double, float>(tensor, out);
  } else if (tensor.dtype() == DType::kF64) {
    convert<double, double>(tensor, out);
  } else if (!convert_integers(tensor, out)) {
    return std::nullopt;
  }
  return out;
}

std::optional<std::vector<int64_t>> to_integers(const Tensor& tensor) {
  std::vector<int64_t> out(static_cast<size_t>(tensor.size()));
  if (!convert_integers(tensor, out)) return std::nullopt;
  return out;
}

std::optional<Tensor> from_doubles(DType dtype, Shape shape, std::span<const double> values) {
  if (dtype == DType::kF16 || dtype == DType::kBF16) return std::nullopt;
  if (!is_float(dtype)) {
    if (dtype == DType::kBool) {
      Tensor out(dtype, std::move(shape));
      store<bool>(out, values);
      return out;
    }
    std::vector<int64_t> whole(values.size());
    for (size_t i = 0; i < whole.size(); ++i) whole[i] = truncated(values[i]);
    return from_integers(dtype, std::move(shape), whole);
  }
  Tensor out(dtype, std::move(shape));
  if (dtype == DType::kF32) store<float>(out, values);
  else store<double>(out, values);
  return out;
}

Tensor from_integers(DType dtype, Shape shape, std::span<const int64_t> values) {
  Tensor out(dtype, std::move(shape));
  switch (dtype) {
    case DType::kF32: store<float>(out, values); break;
    case DType::kF64: store<double>(out, values); break;
    case DType::kI8: store<int8_t>(out, values); break;
    case DType::kU8: store<uint8_t>(out, values); break;
    case DType::kI16: store<int16_t>(out, values); break;
    case DType::kU16: store<uint16_t>(out, values); break;
    case DType::kI32: store<int32_t>(out, values); break;
    case DType::kU32: store<uint32_t>(out, values); break;
    case DType::kI64: store<int64_t>(out, values); break;
    case DType::kU64: store<uint64_t>(out, values); break;
    case DType::kBool: store<bool>(out, values); break;
    default: REPQUANT_CHECK(false);
  }
  return out;
}

std::optional<Tensor> cast(const Tensor& tensor, DType to) {
  if (tensor.dtype() == to) return tensor;
  if (to == DType::kF16 || to == DType::kBF16) return std::nullopt;
  if (const auto whole = to_integers(tensor)) return from_integers(to, tensor.shape(), *whole);
  const auto values = to_doubles(tensor);
  if (!values) return std::nullopt;
  return from_doubles(to, tensor.shape(), *values);
}

std::optional<int64_t> normal_axis(int64_t axis, int64_t rank) {
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) return std::nullopt;
  return axis;
}

std::optional<std::vector<int64_t>> integers_of(const Node& node, Inputs inputs, size_t index,
                                                const std::string& name) {
  if (const Tensor* tensor = input(inputs, index)) {
    return is_integer(tensor->dtype()) ? to_integers(*tensor) : std::nullopt;
  }
  if (node.attrs.has(name)) return node.attrs.integers(name);
  return std::nullopt;
}

bool too_large(std::span<const int64_t> shape) {
  constexpr int64_t kMost = int64_t{1} << 28;
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count) || count > kMost) return true;
  }
  return false;
}

std::optional<Shape> broadcast(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t y = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (x != y && x != 1 && y != 1) return std::nullopt;
    out[out.size() - 1 - i] = x == 1 ? y : x;
  }
  return out;
}

std::vector<int64_t> row_major_strides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t d = shape.size(); d-- > 1;) strides[d - 1] = strides[d] * shape[d];
  return strides;
}

Tensor strided_copy(const Tensor& in, const Shape& shape, std::span<const int64_t> strides,
                    int64_t offset) {
  Tensor out(in.dtype(), shape);
  if (out.size() == 0) return out;
  const auto run = [&](auto tag) {
    using T = decltype(tag);
    copy_strided(static_cast<const T*>(in.data()) + offset, static_cast<T*>(out.data()), shape,
                 strides);
  };
  switch (size_of(in.dtype())) {
    case 1: run(uint8_t{}); break;
    case 2: run(uint16_t{}); break;
    case 4: run(uint32_t{}); break;
    default: run(uint64_t{}); break;
  }
  return out;
}

std::optional<Tensor> expand_to(const Tensor& in, const Shape& shape) {
  if (in.shape() == shape) return in;
  if (in.shape().size() > shape.size() || too_large(shape)) return std::nullopt;
  const size_t pad = shape.size() - in.shape().size();
  const auto own = row_major_strides(in.shape());
  std::vector<int64_t> strides(shape.size(), 0);
  for (size_t d = 0; d < own.size(); ++d) {
    if (in.shape()[d] == shape[pad + d]) strides[pad + d] = own[d];
    else if (in.shape()[d] != 1) return std::nullopt;
  }
  return strided_copy(in, shape, strides, 0);
}

}   // namespace repquant::reference
