#include "repquant/core/plan.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

namespace repquant {
namespace {

int64_t row_bytes_of(int64_t k, const std::string& layout) {
  if (layout == "canon8") return k;
  if (layout == "canon4") return (k + 1) / 2;
  if (layout == "canon2") return (k + 3) / 4;
  REPQUANT_CHECK(layout == "canon3");
  return (k + 3) / 4 + (k + 7) / 8;
}

// Low `width` bits of each code at position k of a plane that holds 8/width codes a byte.
void put_bits(uint8_t* plane, int64_t k, int width, uint8_t value) {
  const int per_byte = 8 / width;
  plane[k / per_byte] |= static_cast<uint8_t>(value << (width * static_cast<int>(k % per_byte)));
}

uint8_t get_bits(const uint8_t* plane, int64_t k, int width) {
  const int per_byte = 8 / width;
  const int shifted = plane[k / per_byte] >> (width * static_cast<int>(k % per_byte));
  return static_cast<uint8_t>(shifted & ((1 << width) - 1));
}

int8_t sign_extend(uint8_t value, int bits) {
  const int sign = 1 << (bits - 1);
  return static_cast<int8_t>((value ^ sign) - sign);
}

void pack_row(const int8_t* codes, int64_t k, const std::string& layout, uint8_t* out) {
  if (layout == "canon8") {
    std::memcpy(out, codes, static_cast<size_t>(k));
    return;
  }
  const int low = layout == "canon4" ? 4 : 2;
  for (int64_t i = 0; i < k; ++i) {
    put_bits(out, i, low, static_cast<uint8_t>(codes[i] & ((1 << low) - 1)));
  }
  if (layout != "canon3") return;
  for (int64_t i = 0; i < k; ++i) {
    put_bits(out + (k + 3) / 4, i, 1, static_cast<uint8_t>(codes[i] >> 2 & 1));
  }
}

void unpack_row(const uint8_t* in, int64_t k, const std::string& layout, int8_t* codes) {
  if (layout == "canon8") {
    std::memcpy(codes, in, static_cast<size_t>(k));
  } else if (layout == "canon4") {
    const int64_t pairs = k / 2;
    for (int64_t i = 0; i < pairs; ++i) {
      codes[2 * i] = sign_extend(in[i] & 15, 4);
      codes[2 * i + 1] = sign_extend(static_cast<uint8_t>(in[i] >> 4), 4);
    }
    if (k % 2 != 0) codes[k - 1] = sign_extend(in[pairs] & 15, 4);
  } else if (layout == "canon2") {
    for (int64_t i = 0; i < k; ++i) codes[i] = sign_extend(get_bits(in, i, 2), 2);
  } else {
    const uint8_t* high = in + (k + 3) / 4;
    for (int64_t i = 0; i < k; ++i) {
      codes[i] =
          sign_extend(static_cast<uint8_t>(get_bits(in, i, 2) | get_bits(high, i, 1) << 2), 3);
    }
  }
}

}  // namespace

const Tensor* Plan::find_tensor(const Step& step, const std::string& role) const {
  const auto name = step.tensors.find(role);
  if (name == step.tensors.end()) return nullptr;
  const auto found = tensors.find(name->second);
  return found == tensors.end() ? nullptr : &found->second.data;
}

const Tensor& Plan::tensor(const Step& step, const std::string& role) const {
  if (const Tensor* found = find_tensor(step, role)) return *found;
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("plan: step \"{}\" ({}): expected a tensor \"{}\", got none", step.name,
                          step.op, role));
}

int64_t Plan::integer(const Step& step, const std::string& key) const {
  const auto found = step.ints.find(key);
  if (found != step.ints.end()) return found->second;
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("plan: step \"{}\" ({}): expected an integer \"{}\", got none", step.name,
                          step.op, key));
}

std::string layout_for(int bits) {
  REPQUANT_CHECK(bits >= 2 && bits <= 8);
  if (bits > 4) return "canon8";
  return fmt::format("canon{}", bits);
}

Tensor pack_weights(std::span<const int8_t> codes, int64_t n, int64_t k, int bits) {
  const std::string layout = layout_for(bits);
  REPQUANT_CHECK(n >= 0 && k >= 0 &&
                 element_count(Shape{n, k}) == static_cast<int64_t>(codes.size()));
  const int limit = 1 << (bits - 1);
  for (const int8_t code : codes) {
    if (code < -limit || code >= limit) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("pack: weights: expected codes of {} bits, got {}", bits, code));
    }
  }
  const int64_t row_bytes = row_bytes_of(k, layout);
  Tensor packed(DType::kU8, {n, row_bytes});
  uint8_t* out = packed.as<uint8_t>().data();
  for (int64_t row = 0; row < n; ++row) {
    pack_row(codes.data() + row * k, k, layout, out + row * row_bytes);
  }
  return packed;
}

void check_weights(const PlanTensor& tensor) {
  const auto refuse = [&](const std::string& expected) {
    throw Error(
        ErrorCode::kCorruptFile,
        fmt::format("plan: tensor \"{}\": expected {}, got {} {} as {}", tensor.name, expected,
                    name_of(tensor.data.dtype()), to_string(tensor.data.shape()), tensor.layout));
  };
  if (tensor.bits < 2 || tensor.bits > 8 || tensor.layout != layout_for(tensor.bits)) {
    refuse("packed weights of 2 to 8 bits");
  }
  if (tensor.logical_shape.size() != 2 || tensor.logical_shape[0] < 0 ||
      tensor.logical_shape[1] < 0) {
    refuse("a logical shape [N, K]");
  }
  const int64_t n = tensor.logical_shape[0], k = tensor.logical_shape[1];
  (void)element_count(tensor.logical_shape);
  if (k > (int64_t{1} << 40)) refuse("fewer columns");
  const int64_t row_bytes = row_bytes_of(k, tensor.layout);
  if (tensor.data.dtype() != DType::kU8 || tensor.data.shape() != Shape{n, row_bytes}) {
    refuse(fmt::format("U8 [{}, {}]", n, row_bytes));
  }
  if (tensor.bits <= 4 || tensor.bits == 8) return;  // every pattern of bits is a code
  const int limit = 1 << (tensor.bits - 1);
  for (const uint8_t byte : tensor.data.as<uint8_t>()) {
    const auto code = static_cast<int8_t>(byte);
    if (code < -limit || code >= limit) refuse(fmt::format("codes of {} bits", tensor.bits));
  }
}

std::vector<int8_t> unpack_weights(const PlanTensor& tensor) {
  check_weights(tensor);
  const int64_t n = tensor.logical_shape[0], k = tensor.logical_shape[1];
  const int64_t row_bytes = row_bytes_of(k, tensor.layout);
  std::vector<int8_t> codes(static_cast<size_t>(n * k));
  const uint8_t* in = tensor.data.as<uint8_t>().data();
  for (int64_t row = 0; row < n; ++row) {
    unpack_row(in + row * row_bytes, k, tensor.layout, codes.data() + row * k);
  }
  return codes;
}

}  // namespace repquant
