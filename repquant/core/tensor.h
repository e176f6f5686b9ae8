#pragma once
// Element types, shapes, and dense row-major host tensors.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "repquant/core/error.h"

namespace repquant {

enum class DType : uint8_t { kF32, kF64, kF16, kBF16, kI8, kU8, kI16, kU16, kI32, kU32, kI64, kU64,
                             kBool };

size_t size_of(DType dtype);              // bytes an element
std::string_view name_of(DType dtype);    // safetensors spelling: "F32", "U8", "BOOL", ...

using Shape = std::vector<int64_t>;

// Product of the dimensions with overflow check; throws kCorruptFile on overflow or a negative size.
int64_t element_count(std::span<const int64_t> shape);
std::string to_string(std::span<const int64_t> shape);  // "[1, 3, 224, 224]"

template <class T> struct DTypeOf;
template <> struct DTypeOf<float> { static constexpr DType value = DType::kF32; };
template <> struct DTypeOf<double> { static constexpr DType value = DType::kF64; };
template <> struct DTypeOf<int8_t> { static constexpr DType value = DType::kI8; };
template <> struct DTypeOf<uint8_t> { static constexpr DType value = DType::kU8; };
template <> struct DTypeOf<int16_t> { static constexpr DType value = DType::kI16; };
template <> struct DTypeOf<uint16_t> { static constexpr DType value = DType::kU16; };
template <> struct DTypeOf<int32_t> { static constexpr DType value = DType::kI32; };
template <> struct DTypeOf<uint32_t> { static constexpr DType value = DType::kU32; };
template <> struct DTypeOf<int64_t> { static constexpr DType value = DType::kI64; };
template <> struct DTypeOf<uint64_t> { static constexpr DType value = DType::kU64; };
template <> struct DTypeOf<bool> { static constexpr DType value = DType::kBool; };

// Names that end in View never own.
struct ConstTensorView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  std::span<const int64_t> shape;

  int64_t size() const { return element_count(shape); }
  template <class T> std::span<const T> as() const {
    REPQUANT_CHECK(DTypeOf<T>::value == dtype);
    return {static_cast<const T*>(data), static_cast<size_t>(size())};
  }
};

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  std::span<const int64_t> shape;

  int64_t size() const { return element_count(shape); }
  template <class T> std::span<T> as() const {
    REPQUANT_CHECK(DTypeOf<T>::value == dtype);
    return {static_cast<T*>(data), static_cast<size_t>(size())};
  }
};

// Owns its elements (zero-initialised). Rank 0 holds one element.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);
  template <class T> static Tensor of(Shape shape, std::span<const T> values) {
    Tensor t(DTypeOf<T>::value, std::move(shape));
    REPQUANT_CHECK(static_cast<int64_t>(values.size()) == t.size());
    if (!values.empty()) std::memcpy(t.data(), values.data(), values.size_bytes());
    return t;
  }
  template <class T> static Tensor of(Shape shape, const std::vector<T>& values) {
    return of(std::move(shape), std::span<const T>(values));
  }
  template <class T> static Tensor scalar(T value) { return of<T>({}, std::span<const T>(&value, 1)); }

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
  int64_t size() const { return size_; }
  size_t bytes() const { return bytes_.size(); }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  template <class T> std::span<T> as() {
    REPQUANT_CHECK(DTypeOf<T>::value == dtype_);
    return {reinterpret_cast<T*>(bytes_.data()), static_cast<size_t>(size_)};
  }
  template <class T> std::span<const T> as() const {
    REPQUANT_CHECK(DTypeOf<T>::value == dtype_);
    return {reinterpret_cast<const T*>(bytes_.data()), static_cast<size_t>(size_)};
  }
  void reshape(Shape shape);  // same element count
  ConstTensorView view() const { return {bytes_.data(), dtype_, shape_}; }
  TensorView view() { return {bytes_.data(), dtype_, shape_}; }

 private:
  DType dtype_ = DType::kF32;
  Shape shape_{0};
  int64_t size_ = 0;
  std::vector<std::byte> bytes_;
};

}  // namespace repquant
