#include "cli/bench_kernels.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <thread>

#include <fmt/format.h>

#include "cli/bench_contenders.h"
#include "cli/bench_families.h"
#include "cli/exit_codes.h"
#include "cli/machine_probes.h"
#include "repquant/core/error.h"
#include "repquant/core/machine.h"
#include "repquant/core/random.h"
#include "repquant/core/version.h"
#include "repquant/runtime/kernels/gemm_i4/gemm_i4.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::cli {
namespace {

using nlohmann::json;
using runtime::GemmI4Kernel;
using runtime::GemmI8Args;
using runtime::GemmI8Kernel;
using runtime::GemmI8Shape;
using runtime::Isa;

constexpr double kProbeSeconds = 0.004;
constexpr int64_t kMostElements = int64_t{1} << 28;
constexpr const char* kDefaultShapes =
    "197,192,576;197,192,192;197,192,768;197,768,192;197,768,3072;1568,384,1536;512,2048,2048;"
    "4,768,3072;1,2048,8192";

constexpr const char* kFamilies = "families";  // in place of shapes: no products

struct ShapeOf {
  int64_t m = 0, k = 0, n = 0;
  double operations() const { return 2.0 * static_cast<double>(m * k * n); }
};

std::vector<ShapeOf> read_shapes(const std::string& text) {
  std::vector<ShapeOf> all;
  if (text == kFamilies) return all;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(';', begin), text.size());
    const std::string one = text.substr(begin, end - begin);
    ShapeOf s;
    int used = 0;
    const bool read = std::sscanf(one.c_str(), "%ld,%ld,%ld%n", &s.m, &s.k, &s.n, &used) == 3 &&
                      static_cast<size_t>(used) == one.size();
    const auto fits = [](int64_t v, int64_t most) { return v >= 1 && v <= most; };
    if (!read || !fits(s.m, 1 << 20) || !fits(s.k, 1 << 16) || !fits(s.n, 1 << 20) ||
        s.m * s.k > kMostElements || s.k * s.n > kMostElements || s.m * s.n > kMostElements) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("bench: --shapes: expected families or M,K,N;M,K,N;... of positive numbers, "
                      "each matrix at most {} elements, K at most 65536, got \"{}\"",
                      kMostElements, one),
          "for example 197,192,576");
    }
    all.push_back(s);
    begin = end + 1;
  }
  return all;
}

// What the kernels are held to: fractions of the register peak of the same run, for products of
// many rows. 0: nothing.
struct Demand {
  double floor = 0, goal = 0;
};
Demand demand_of(Isa isa, int bits, const ShapeOf& shape) {
  if (shape.m < 64) return {};
  if (isa == Isa::kAvx512Vnni) return bits == 8 ? Demand{0.80, 0.92} : Demand{0.70, 0.90};
  if (isa != Isa::kAmx) return {};
  const double narrow = bits == 8 ? 1.0 : 0.85;
  if (shape.k >= 2048) return {0.30 * narrow, 0.55};
  if (shape.k >= 768 && shape.n < 768) return {0.33 * narrow, 0.48};
  return shape.k < 384 ? Demand{0.25 * narrow, 0.38} : Demand{0.28 * narrow, 0.45};
}

// The operands of one shape and weight width, for every row.
class Operands {
 public:
  Operands(const ShapeOf& shape, int bits) : shape_{.n = shape.n, .k = shape.k}, rows_(shape.m) {
    uint64_t state = 7;
    const auto random = [&state] { return splitmix64(state) >> 20; };
    codes_.resize(static_cast<size_t>(shape.m * shape.k) + 64);
    for (uint8_t& v : codes_) v = static_cast<uint8_t>(random());
    weights_.resize(static_cast<size_t>(shape.k * shape.n));
    const int half = 1 << (bits - 1);
    for (int8_t& v : weights_)
      v = static_cast<int8_t>(static_cast<int>(random() % (2 * static_cast<uint64_t>(half))) -
                              half);
    const auto n = static_cast<size_t>(shape.n);
    c_.resize(n), m_.resize(n);
    for (size_t i = 0; i < n; ++i) {
      c_[i] = static_cast<int32_t>(random() % 2000) - 1000;
      m_[i] = 1.0f / (64.0f * static_cast<float>(half)) / static_cast<float>(1 + random() % 8);
    }
    pairs_ = runtime::pair_bound(shape_, weights_.data(), 255);
  }
  const GemmI8Shape& shape() const { return shape_; }
  const int8_t* weights() const { return weights_.data(); }

  GemmI8Args args(const void* packed, std::byte* scratch, std::vector<uint8_t>& out) const {
    GemmI8Args args;
    args.shape = shape_;
    args.rows = rows_;
    args.a = codes_.data();
    args.stride_x = shape_.k;
    args.weights = packed;
    args.pair_bound = pairs_;
    args.c = c_.data();
    args.out_stride = shape_.n;
    out.assign(static_cast<size_t>(rows_ * shape_.n), 0);
    args.codes = out.data();
    args.m = m_.data();
    args.zero = 128;
    args.scratch = scratch;
    return args;
  }

 private:
  GemmI8Shape shape_;
  int64_t rows_, pairs_ = 0;
  std::vector<uint8_t> codes_;
  std::vector<int8_t> weights_;
  std::vector<int32_t> c_;
  std::vector<float> m_;
};

// One row of a table on one shape.
struct Timed {
  std::string kernel;
  Isa isa = Isa::kScalar;
  int bits = 8;
  ShapeOf shape;
  size_t packed_bytes = 0;
  runtime::AlignedBytes packed, scratch;
  std::vector<uint8_t> out;
  std::function<void()> call;
  std::vector<double> seconds, peak, bandwidth;
};

std::unique_ptr<Timed> prepare(const GemmI8Kernel& row, const ShapeOf& shape, const Operands& in) {
  auto timed = std::make_unique<Timed>();
  timed->kernel = row.name, timed->isa = row.isa, timed->bits = 8, timed->shape = shape;
  timed->packed_bytes = row.packed_bytes(in.shape());
  timed->packed = runtime::AlignedBytes(timed->packed_bytes + 64);
  timed->scratch = runtime::AlignedBytes(row.scratch_bytes(in.shape()) + 64);
  row.pack(in.shape(), in.weights(), timed->packed.data());
  const GemmI8Args args = in.args(timed->packed.data(), timed->scratch.data(), timed->out);
  timed->call = [&row, args] { row.run(args); };
  return timed;
}

std::unique_ptr<Timed> prepare(const GemmI4Kernel& row, int bits, const ShapeOf& shape,
                               const Operands& in) {
  auto timed = std::make_unique<Timed>();
  timed->kernel = row.name, timed->isa = row.isa, timed->bits = bits, timed->shape = shape;
  timed->packed_bytes = row.packed_bytes(in.shape(), bits);
  timed->packed = runtime::AlignedBytes(timed->packed_bytes + 64);
  timed->scratch = runtime::AlignedBytes(row.scratch_bytes(in.shape()) + 64);
  row.pack(in.shape(), bits, in.weights(), timed->packed.data());
  const GemmI8Args args = in.args(timed->packed.data(), timed->scratch.data(), timed->out);
  timed->call = [&row, args, bits] { row.run(args, bits); };
  return timed;
}

// Throws kInternal when a row differs from the scalar one.
std::vector<std::unique_ptr<Timed>> prepare_all(const std::vector<ShapeOf>& shapes,
                                                std::vector<std::unique_ptr<Operands>>& operands,
                                                Isa most) {
  std::vector<std::unique_ptr<Timed>> all;
  for (const ShapeOf& shape : shapes) {
    for (const int bits : {8, 4}) {
      operands.push_back(std::make_unique<Operands>(shape, bits));
      const Operands& in = *operands.back();
      const auto law = prepare(runtime::gemm_i8_scalar, shape, in);
      law->call();
      const auto add = [&](const auto& row, auto... width) {
        if (row.isa > most || !runtime::isa_available(row.isa) || row.isa == Isa::kScalar) return;
        auto timed = prepare(row, width..., shape, in);
        timed->call();
        if (timed->out != law->out) {
          throw Error(
              ErrorCode::kInternal,
              fmt::format("bench: {} on {},{},{}: expected the codes of the scalar row, got "
                          "others",
                          row.name, shape.m, shape.k, shape.n));
        }
        all.push_back(std::move(timed));
      };
      if (bits == 8) {
        for (const GemmI8Kernel* row : runtime::gemm_i8_kernels()) add(*row);
      } else {
        for (const GemmI4Kernel* row : runtime::gemm_i4_kernels()) add(*row, bits);
      }
    }
  }
  return all;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

// By rounds: of the register peak; of the bandwidth, what weights and codes take.
std::vector<double> of_peak(const Timed& timed) {
  std::vector<double> all;
  for (size_t i = 0; i < timed.seconds.size(); ++i)
    all.push_back(timed.peak[i] > 0 ? timed.shape.operations() / timed.seconds[i] / timed.peak[i]
                                    : 0);
  return all;
}
std::vector<double> of_bandwidth(const Timed& timed) {
  std::vector<double> all;
  for (size_t i = 0; i < timed.seconds.size(); ++i)
    all.push_back(static_cast<double>(timed.packed_bytes) / timed.seconds[i] / timed.bandwidth[i]);
  return all;
}
// The seconds of the same instruction set with weights of 8 bits over those of `timed`.
std::vector<double> of_eight_bits(const Timed& timed,
                                  const std::vector<std::unique_ptr<Timed>>& all) {
  std::vector<double> ratios;
  for (const auto& other : all) {
    const bool same = other->isa == timed.isa && other->bits == 8 && timed.bits != 8 &&
                      other->shape.m == timed.shape.m && other->shape.k == timed.shape.k &&
                      other->shape.n == timed.shape.n;
    for (size_t i = 0; same && i < timed.seconds.size(); ++i)
      ratios.push_back(other->seconds[i] / timed.seconds[i]);
    if (same) break;
  }
  return ratios;
}

json row_json(const Timed& timed, const std::vector<std::unique_ptr<Timed>>& all) {
  const std::vector<double> peak = of_peak(timed), eight = of_eight_bits(timed, all);
  const Demand demand = demand_of(timed.isa, timed.bits, timed.shape);
  json row = {{"kernel", timed.kernel},
              {"isa", runtime::isa_name(timed.isa)},
              {"shape", {timed.shape.m, timed.shape.k, timed.shape.n}},
              {"weight_bits", timed.bits},
              {"packed_bytes", timed.packed_bytes},
              {"verified", true},
              {"gops", timed.shape.operations() / quantile(timed.seconds, 0.5) / 1e9},
              {"of_peak", quantile(peak, 0.5)},
              {"of_peak_spread", {quantile(peak, 0.1), quantile(peak, 0.9)}},
              {"of_read_bandwidth", quantile(of_bandwidth(timed), 0.5)},
              {"samples_s", timed.seconds},
              {"peak_ops_per_s", timed.peak}};
  if (!eight.empty()) row["of_eight_bits"] = quantile(eight, 0.5);
  if (demand.floor > 0) row.update({{"floor", demand.floor}, {"goal", demand.goal}});
  return row;
}

std::string table(const json& rows) {
  std::string text =
      fmt::format("{:<18}{:<20}{:>5}{:>9}{:>9}{:>16}{:>8}{:>7}{:>7}{:>10}\n", "M,K,N", "kernel",
                  "bits", "Gop/s", "of peak", "10-90 %", "floor", "goal", "of W8", "of memory");
  for (const json& row : rows) {
    const auto number = [&](const char* key) {
      return row.contains(key) ? fmt::format("{:.2f}", row[key].get<double>()) : std::string("-");
    };
    text += fmt::format("{:<18}{:<20}{:>5}{:>9.0f}{:>9}{:>16}{:>8}{:>7}{:>7}{:>10}\n",
                        fmt::format("{},{},{}", row["shape"][0].get<int64_t>(),
                                    row["shape"][1].get<int64_t>(), row["shape"][2].get<int64_t>()),
                        row["kernel"].get<std::string>(), row["weight_bits"].get<int>(),
                        row["gops"].get<double>(), number("of_peak"),
                        fmt::format("{:.2f} .. {:.2f}", row["of_peak_spread"][0].get<double>(),
                                    row["of_peak_spread"][1].get<double>()),
                        number("floor"), number("goal"), number("of_eight_bits"),
                        number("of_read_bandwidth"));
  }
  return text;
}

json form_json(const FamilyForm& form) {
  std::vector<double> ns, peak;
  for (size_t i = 0; i < form.seconds.size(); ++i) {
    ns.push_back(form.seconds[i] / form.elements * 1e9);
    if (form.operations > 0 && form.peak[i] > 0)
      peak.push_back(form.operations / form.seconds[i] / form.peak[i]);
  }
  json row = {{"kernel", form.kernel},
              {"isa", runtime::isa_name(form.isa)},
              {"form", form.form},
              {"verified", true},
              {"ns_per_element", quantile(ns, 0.5)},
              {"ns_per_element_spread", {quantile(ns, 0.1), quantile(ns, 0.9)}},
              {"samples_s", form.seconds}};
  if (form.floor_ns > 0) row["floor_ns_per_element"] = form.floor_ns;
  if (!peak.empty()) row["of_peak"] = quantile(peak, 0.5);
  if (form.floor_of_peak > 0)
    row.update({{"floor", form.floor_of_peak}, {"goal", form.goal_of_peak}});
  return row;
}

std::string forms_table(const json& rows) {
  std::string text =
      fmt::format("{:<38}{:<24}{:>11}{:>18}{:>10}{:>9}{:>7}{:>7}\n", "form", "kernel", "ns/element",
                  "10-90 %", "at most", "of peak", "floor", "goal");
  for (const json& row : rows) {
    const auto number = [&](const char* key, const char* format) {
      return row.contains(key) ? fmt::format(fmt::runtime(format), row[key].get<double>())
                               : std::string("-");
    };
    text += fmt::format(
        "{:<38}{:<24}{:>11}{:>18}{:>10}{:>9}{:>7}{:>7}\n", row["form"].get<std::string>(),
        row["kernel"].get<std::string>(), number("ns_per_element", "{:.3f}"),
        fmt::format("{:.3f} .. {:.3f}", row["ns_per_element_spread"][0].get<double>(),
                    row["ns_per_element_spread"][1].get<double>()),
        number("floor_ns_per_element", "{:.2f}"), number("of_peak", "{:.2f}"),
        number("floor", "{:.2f}"), number("goal", "{:.2f}"));
  }
  return text;
}

// One window of each in turn, each round from another one on; what a product is measured by comes
// from the same round.
void measure(const std::vector<std::unique_ptr<Timed>>& products,
             const std::vector<std::unique_ptr<FamilyForm>>& forms, const KernelBench& options,
             const Context& context) {
  ThreadPool alone(1);
  const double window = options.window_ms / 1e3;
  const size_t count = products.size() + forms.size();
  for (int64_t round = 0; round < options.rounds; ++round) {
    const double bandwidth = read_bandwidth();
    for (size_t i = 0; i < count; ++i) {
      if (context.stop->raised()) throw Interrupted("bench: interrupted");
      const size_t turn = (i + static_cast<size_t>(round)) % count;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (turn < products.size()) {
        Timed& timed = *products[turn];
        timed.peak.push_back(register_peak(timed.isa, alone, kProbeSeconds));
        timed.seconds.push_back(timed_window(timed.call, window));
        timed.bandwidth.push_back(bandwidth);
        continue;
      }
      FamilyForm& form = *forms[turn - products.size()];
      form.peak.push_back(form.operations > 0 ? register_peak(form.isa, alone, kProbeSeconds) : 0);
      form.seconds.push_back(timed_window(form.call, window));
    }
    context.sink.progress({"bench", fmt::format("round {}/{}", round + 1, options.rounds), "", "",
                           static_cast<double>(round + 1) / static_cast<double>(options.rounds)});
  }
}

}  // namespace

Outcome bench_kernels(const KernelBench& options, const Context& context) {
  const auto shapes = read_shapes(options.shapes.empty() ? kDefaultShapes : options.shapes);
  std::vector<std::unique_ptr<Operands>> operands;
  const auto all = prepare_all(shapes, operands, runtime::parse_isa(context.common.isa));
  std::vector<std::unique_ptr<FamilyForm>> forms;
  if (options.shapes.empty() || options.shapes == kFamilies)
    forms = family_forms(runtime::parse_isa(context.common.isa));
  measure(all, forms, options, context);
  Outcome outcome;
  json rows = json::array();
  for (const auto& timed : all) rows.push_back(row_json(*timed, all));
  json others = json::array();
  for (const auto& form : forms) others.push_back(form_json(*form));
  outcome.result = {{"artifact", "kernels"},
                    {"verified", true},
                    {"batch", 1},
                    {"kernels", rows},
                    {"forms", others},
                    {"rounds", options.rounds},
                    {"window_ms", options.window_ms},
                    {"machine",
                     {{"cpu", cpu_name()},
                      {"isa", runtime::isa_name(runtime::parse_isa(context.common.isa))},
                      {"threads", 1}}},
                    {"versions", {{"repquant", kVersion}}}};
  if (!rows.empty()) outcome.text += table(rows);
  if (!rows.empty() && !others.empty()) outcome.text += "\n";
  if (!others.empty()) outcome.text += forms_table(others);
  return outcome;
}

}  // namespace repquant::cli
