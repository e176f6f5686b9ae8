#pragma once
// elementwise: quantize, quantize_log, table, dequantize, add, mul over contiguous ranges
// (core/plan.h has the laws). Kernels check nothing and allocate nothing.
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/runtime/kernels/isa.h"
#include "repquant/runtime/kernels/log_fit.h"

namespace repquant::runtime {

struct QuantizeArgs {
  const float* x = nullptr;
  uint8_t* codes = nullptr;
  int64_t count = 0;
  float inv = 1;
  int32_t zero = 0, lo = 0, hi = 255;
};

struct QuantizeLogArgs {
  const float* x = nullptr;
  uint8_t* codes = nullptr;
  int64_t count = 0;
  float shift = 0;
  const float* thresholds = nullptr;  // [levels], descending
  int64_t levels = 0;                 // at most 255
  LogFit fit;                         // of the thresholds, or none
};

struct TableArgs {
  const uint8_t* codes = nullptr;
  uint8_t* out = nullptr;  // may be `codes`
  int64_t count = 0;
  const uint8_t* table = nullptr;  // [256]
};

struct DequantizeArgs {
  const uint8_t* codes = nullptr;
  float* out = nullptr;
  int64_t count = 0;
  float scale = 1;
  int32_t zero = 0;
};

struct BinaryArgs {  // out may be a or b
  const float *a = nullptr, *b = nullptr;
  float* out = nullptr;
  int64_t count = 0;
};

struct ElementwiseKernel {
  std::string_view name;
  Isa isa;
  void (*quantize)(const QuantizeArgs&) noexcept;
  void (*quantize_log)(const QuantizeLogArgs&) noexcept;
  void (*table)(const TableArgs&) noexcept;
  void (*dequantize)(const DequantizeArgs&) noexcept;
  void (*add)(const BinaryArgs&) noexcept;
  void (*mul)(const BinaryArgs&) noexcept;
};

std::span<const ElementwiseKernel* const> elementwise_kernels();

// Rows, each defined where its instruction set exists.
extern const ElementwiseKernel elementwise_scalar, elementwise_avx2, elementwise_avx512vnni;

}  // namespace repquant::runtime
