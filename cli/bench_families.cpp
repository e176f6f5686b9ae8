#include "cli/bench_families.h"

#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/format/log.h"
#include "repquant/core/random.h"
#include "repquant/runtime/kernels/activation/activation.h"
#include "repquant/runtime/kernels/attention_i8/attention_i8.h"
#include "repquant/runtime/kernels/depthwise_i8/depthwise_i8.h"
#include "repquant/runtime/kernels/elementwise/elementwise.h"
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/kernels/matmul_f32/matmul_f32.h"
#include "repquant/runtime/kernels/norm/norm.h"
#include "repquant/runtime/kernels/softmax/softmax.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::cli {
namespace {

using namespace runtime;

class Numbers {
 public:
  std::vector<float> floats(int64_t count, float low, float high) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values)
      v = low + (high - low) * static_cast<float>(splitmix64(state_) >> 40) / 16777216.0f;
    return values;
  }
  std::vector<uint8_t> codes(int64_t count) {
    std::vector<uint8_t> values(static_cast<size_t>(count));
    for (uint8_t& v : values) v = static_cast<uint8_t>(splitmix64(state_) >> 24);
    return values;
  }
  std::vector<int8_t> weights(int64_t count) {
    std::vector<int8_t> values(static_cast<size_t>(count));
    for (int8_t& v : values) v = static_cast<int8_t>(splitmix64(state_) >> 24);
    return values;
  }

 private:
  uint64_t state_ = 11;
};

// What all rows of a form share: its operands and what a row writes.
struct Form {
  std::string name;
  double elements = 0, operations = 0, floor_ns = 0, floor_of_peak = 0, goal_of_peak = 0;
  size_t out_bytes = 0;
};

using All = std::vector<std::unique_ptr<FamilyForm>>;

// `prepare(row, out)` gives the call of a row that writes to `out`, operands held by it.
template <class Row, class Prepare>
void add(All& all, Isa most, const Form& form, std::span<const Row* const> rows,
         const Prepare& prepare) {
  std::vector<std::byte> law(form.out_bytes);
  prepare(*rows.back(), law.data())();
  for (const Row* row : rows) {
    if (row->isa > most || !isa_available(row->isa) || row->isa == Isa::kScalar) continue;
    const auto out = std::make_shared<std::vector<std::byte>>(form.out_bytes);
    auto timed = std::make_unique<FamilyForm>();
    timed->kernel = row->name, timed->form = form.name, timed->isa = row->isa;
    timed->elements = form.elements, timed->operations = form.operations;
    if (row->isa == Isa::kAvx512Vnni) {
      timed->floor_ns = form.floor_ns;
      timed->floor_of_peak = form.floor_of_peak, timed->goal_of_peak = form.goal_of_peak;
    }
    timed->call = [call = prepare(*row, out->data()), out] { call(); };
    timed->call();
    if (*out != law) {
      throw Error(ErrorCode::kInternal,
                  fmt::format("bench: {} on {}: expected the bytes of the scalar row, got others",
                              row->name, form.name));
    }
    all.push_back(std::move(timed));
  }
}

using Call = std::function<void()>;

void add_rows(All& all, Isa most, Numbers& numbers) {
  constexpr int64_t kRows = 197, kChannels = 192;
  const int64_t count = kRows * kChannels;
  const auto x = std::make_shared<std::vector<float>>(numbers.floats(count, -3, 3));
  const auto gain = std::make_shared<std::vector<float>>(numbers.floats(kChannels, 10, 40));
  for (const bool layer : {true, false}) {
    add(all, most,
        {.name = fmt::format("{} 197x192 to u8", layer ? "layer_norm" : "rms_norm"),
         .elements = static_cast<double>(count),
         .floor_ns = 0.25,
         .out_bytes = static_cast<size_t>(count)},
        norm_kernels(), [=](const NormKernel& row, std::byte* out) -> Call {
          NormArgs args{x->data(), kRows, kChannels, gain->data(), gain->data(), 1e-6f};
          args.codes = reinterpret_cast<uint8_t*>(out), args.zero = 120;
          return [=, run = layer ? row.layer_norm : row.rms_norm, keep = std::pair(x, gain)] {
            run(args);
          };
        });
  }
  const auto scores = std::make_shared<std::vector<float>>(numbers.floats(kRows * kRows, -9, 9));
  add(all, most,
      {.name = "softmax 197x197",
       .elements = static_cast<double>(kRows * kRows),
       .floor_ns = 0.40,
       .out_bytes = static_cast<size_t>(kRows * kRows * 4)},
      softmax_kernels(), [=](const SoftmaxKernel& row, std::byte* out) -> Call {
        const SoftmaxArgs args{scores->data(), reinterpret_cast<float*>(out), kRows, kRows};
        return [args, run = row.softmax, scores] { run(args); };
      });
  const auto narrow = std::make_shared<std::vector<float>>(numbers.floats(4096 * 10, -3, 3));
  add(all, most, {.name = "l2_norm 4096x10", .elements = 40960, .out_bytes = 4096 * 10 * 4},
      softmax_kernels(), [=](const SoftmaxKernel& row, std::byte* out) -> Call {
        const SoftmaxArgs args{narrow->data(), reinterpret_cast<float*>(out), 4096, 10, 1e-12f};
        return [args, run = row.l2_norm, narrow] { run(args); };
      });
}

void add_elements(All& all, Isa most, Numbers& numbers) {
  constexpr int64_t kCount = 197 * 768;
  const auto x = std::make_shared<std::vector<float>>(numbers.floats(kCount, -4, 4));
  const auto codes = std::make_shared<std::vector<uint8_t>>(numbers.codes(kCount));
  const auto table = std::make_shared<std::vector<uint8_t>>(numbers.codes(256));
  const auto elements = static_cast<double>(kCount);
  const auto bytes = static_cast<size_t>(kCount);
  add(all, most, {.name = "gelu_erf 197x768", .elements = elements, .out_bytes = bytes * 4},
      activation_kernels(), [=](const ActivationKernel& row, std::byte* out) -> Call {
        const ActivationArgs args{FunctionKind::kGeluErf, x->data(), reinterpret_cast<float*>(out),
                                  kCount};
        return [args, run = row.run, x] { run(args); };
      });
  add(all, most,
      {.name = "table 197x768", .elements = elements, .floor_ns = 0.05, .out_bytes = bytes},
      elementwise_kernels(), [=](const ElementwiseKernel& row, std::byte* out) -> Call {
        const TableArgs args{codes->data(), reinterpret_cast<uint8_t*>(out), kCount, table->data()};
        return [args, run = row.table, keep = std::pair(codes, table)] { run(args); };
      });
  add(all, most, {.name = "quantize 197x768", .elements = elements, .out_bytes = bytes},
      elementwise_kernels(), [=](const ElementwiseKernel& row, std::byte* out) -> Call {
        const QuantizeArgs args{x->data(), reinterpret_cast<uint8_t*>(out), kCount, 31.0f, 128};
        return [args, run = row.quantize, x] { run(args); };
      });
  for (const int levels : {15, 255}) {
    const auto thresholds = std::make_shared<std::vector<float>>(
        log_thresholds(4.0, levels == 15 ? 2.0 : 16.0, levels));
    add(all, most,
        {.name = fmt::format("quantize_log {} 197x768", levels),
         .elements = elements,
         .out_bytes = bytes},
        elementwise_kernels(), [=](const ElementwiseKernel& row, std::byte* out) -> Call {
          QuantizeLogArgs args{
              x->data(), reinterpret_cast<uint8_t*>(out), kCount, 0.17f, thresholds->data(),
              levels};
          args.fit = fit_log(args.thresholds, args.levels);
          return [args, run = row.quantize_log, keep = std::pair(x, thresholds)] { run(args); };
        });
  }
}

struct AttentionOperands {
  std::vector<uint8_t> q, k, v;
  std::vector<float> thresholds;
  AttentionLevels levels;
};

void add_attention(All& all, Isa most, Numbers& numbers) {
  constexpr int64_t kTokens = 197, kHeads = 6, kWidth = 64, kSize = kTokens * kHeads * kWidth;
  const auto in = std::make_shared<AttentionOperands>();
  in->q = numbers.codes(kSize + 64), in->k = numbers.codes(kSize + 64);
  in->v = numbers.codes(kSize + 64);
  in->thresholds = log_thresholds(1.0, 2.0, 15);
  const std::vector<uint8_t> table = log_table8(2.0, 15);
  for (size_t i = 0; i < table.size(); ++i) in->levels.even[i] = table[i];
  const auto cells = static_cast<double>(kHeads * kTokens * kTokens);
  add(all, most,
      {.name = "attention 6 heads 197x64, log codes",
       .elements = cells,
       .operations = 4 * cells * kWidth,
       .floor_of_peak = 0.5,
       .goal_of_peak = 0.65,
       .out_bytes = static_cast<size_t>(kSize)},
      attention_i8_kernels(), [=](const AttentionI8Kernel& row, std::byte* out) -> Call {
        AttentionI8Args args;
        args.shape = {kTokens, kTokens, kHeads, kWidth};
        args.q = in->q.data(), args.k = in->k.data(), args.v = in->v.data();
        args.zq = 120, args.zk = 131, args.zv = 128;
        args.rows = kTokens, args.m = 2e-5f;
        args.thresholds = in->thresholds.data(), args.level_count = 15;
        args.fit = fit_log(args.thresholds, args.level_count);
        args.levels = &in->levels;
        args.mo = 2e-3f;
        args.codes = reinterpret_cast<uint8_t*>(out), args.zero = 128;
        const auto scratch = std::make_shared<AlignedBytes>(row.scratch_bytes(args.shape) + 64);
        args.scratch = scratch->data();
        return [args, run = row.run, keep = std::pair(in, scratch)]() mutable {
          for (args.head = 0; args.head < args.shape.heads; ++args.head) run(args);
        };
      });
}

struct WindowOperands {
  std::vector<uint8_t> image;
  std::vector<int8_t> w;
  std::vector<int32_t> c, offsets;
  std::vector<float> m;
};

void add_depthwise(All& all, Isa most, Numbers& numbers) {
  constexpr int64_t kSide = 56, kChannels = 64, kSize = kSide * kSide * kChannels;
  const auto in = std::make_shared<WindowOperands>();
  in->image = numbers.codes(kSize), in->w = numbers.weights(kChannels * 9);
  in->c.assign(kChannels, 77);
  in->m = numbers.floats(kChannels, 1e-4f, 4e-4f);
  add(all, most, {.name = "depthwise 3x3 on 56x56x64", .elements = kSize, .out_bytes = kSize},
      depthwise_i8_kernels(), [=](const DepthwiseI8Kernel& row, std::byte* out) -> Call {
        DepthwiseI8Args args;
        args.window.height = args.window.width = 3;
        args.window.top = args.window.left = args.window.bottom = args.window.right = 1;
        args.height = args.width = args.columns = args.rows = kSide;
        args.channels = kChannels;
        args.image = in->image.data(), args.w = in->w.data(), args.c = in->c.data();
        args.m = in->m.data(), args.za = 120, args.zero = 128;
        args.codes = reinterpret_cast<uint8_t*>(out);
        const auto packed = std::make_shared<AlignedBytes>(row.packed_bytes(args) + 64);
        const auto scratch = std::make_shared<AlignedBytes>(row.scratch_bytes(args) + 64);
        row.pack(args, packed->data());
        args.packed = packed->data(), args.scratch = scratch->data();
        return [args, run = row.run, keep = std::tuple(in, packed, scratch)] { run(args); };
      });
}

// Windows of 3 x 3 over an image that lies with its padding.
void add_convolution(All& all, Isa most, Numbers& numbers) {
  constexpr int64_t kSide = 28, kWide = kSide + 2, kChannels = 64, kPixels = kSide * kSide;
  constexpr GemmI8Shape kShape{.n = kChannels, .k = 9 * kChannels, .lines = 3};
  const auto in = std::make_shared<WindowOperands>();
  in->image = numbers.codes(kWide * kWide * kChannels + 64);
  in->w = numbers.weights(kShape.n * kShape.k);
  in->c.assign(kChannels, -500);
  in->m = numbers.floats(kChannels, 1e-5f, 4e-5f);
  const int64_t lines[] = {0, kWide * kChannels, 2 * kWide * kChannels};
  in->offsets.resize(static_cast<size_t>(quad_count(kShape)));
  write_quad_offsets(kShape, lines, in->offsets.data());
  add(all, most,
      {.name = "conv 3x3 on 28x28x64 to 64",
       .elements = static_cast<double>(kPixels * kChannels),
       .operations = 2.0 * static_cast<double>(kPixels * kShape.n * kShape.k),
       .out_bytes = static_cast<size_t>(kPixels * kChannels)},
      gemm_i8_kernels(), [=](const GemmI8Kernel& row, std::byte* out) -> Call {
        GemmI8Args args;
        args.shape = kShape;
        args.rows = kPixels;
        args.a = in->image.data(), args.quad_offsets = in->offsets.data();
        args.columns = kSide, args.stride_x = kChannels, args.stride_y = kWide * kChannels;
        args.pair_bound = pair_bound(kShape, in->w.data(), 255);
        args.c = in->c.data(), args.m = in->m.data(), args.zero = 128;
        args.out_stride = kChannels;
        args.codes = reinterpret_cast<uint8_t*>(out);
        const auto packed = std::make_shared<AlignedBytes>(row.packed_bytes(kShape) + 64);
        const auto scratch = std::make_shared<AlignedBytes>(row.scratch_bytes(kShape) + 64);
        row.pack(kShape, in->w.data(), packed->data());
        args.weights = packed->data(), args.scratch = scratch->data();
        return [args, run = row.run, keep = std::tuple(in, packed, scratch)] { run(args); };
      });
}

void add_float_product(All& all, Isa most, Numbers& numbers) {
  constexpr int64_t kRows = 98, kDepth = 320, kColumns = 40;
  const auto x = std::make_shared<std::vector<float>>(numbers.floats(kRows * kDepth, -1, 1));
  const auto w = std::make_shared<std::vector<float>>(numbers.floats(kDepth * kColumns, -1, 1));
  add(all, most,
      {.name = "matmul f32 98x320x40",
       .elements = static_cast<double>(kRows * kColumns),
       .out_bytes = static_cast<size_t>(kRows * kColumns * 4)},
      matmul_f32_kernels(), [=](const MatmulF32Kernel& row, std::byte* out) -> Call {
        const MatmulF32Args args{x->data(), w->data(), nullptr, reinterpret_cast<float*>(out),
                                 kRows,     kDepth,    kColumns};
        return [args, run = row.run, keep = std::pair(x, w)] { run(args); };
      });
}

}  // namespace

std::vector<std::unique_ptr<FamilyForm>> family_forms(Isa most) {
  All all;
  Numbers numbers;
  add_rows(all, most, numbers);
  add_elements(all, most, numbers);
  add_attention(all, most, numbers);
  add_depthwise(all, most, numbers);
  add_convolution(all, most, numbers);
  add_float_product(all, most, numbers);
  return all;
}

}  // namespace repquant::cli
