#include "repquant/simulate/steps.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "repquant/core/error.h"
#include "repquant/core/format/elementary.h"
#include "repquant/core/format/log.h"
#include "repquant/core/format/reduce.h"
#include "repquant/core/format/uniform.h"
#include "repquant/core/plan_window.h"

namespace repquant::simulate {
namespace {

void quantize(const StepContext& c) {
  const auto x = c.in[0]->as<float>();
  auto q = c.out.as<uint8_t>();
  const float inv = c.reals("inv")[0];
  const CodeOutput codes(c);
  const bool function = c.step.strings.contains("kind");
  for (size_t i = 0; i < x.size(); ++i) {
    const float v = function ? function_value(c, x[i]) : x[i];
    q[i] = static_cast<uint8_t>(quantize_uniform(v, inv, codes.zero, codes.lo, codes.hi));
  }
}

void quantize_log(const StepContext& c) {
  const auto x = c.in[0]->as<float>();
  auto q = c.out.as<uint8_t>();
  const float shift = c.reals("shift")[0];
  const auto thr = c.reals("thr");
  for (size_t i = 0; i < x.size(); ++i) q[i] = static_cast<uint8_t>(log_code(x[i] + shift, thr));
}

void table(const StepContext& c) {
  const auto a = c.in[0]->as<uint8_t>();
  auto q = c.out.as<uint8_t>();
  const auto lut = c.plan.tensor(c.step, "lut").as<uint8_t>();
  for (size_t i = 0; i < a.size(); ++i) q[i] = lut[a[i]];
}

void dequantize(const StepContext& c) {
  const auto q = c.in[0]->as<uint8_t>();
  auto x = c.out.as<float>();
  const float s = c.reals("s")[0];
  const int32_t zero = c.integer("zero");
  for (size_t i = 0; i < q.size(); ++i) x[i] = dequantize_uniform(q[i], s, zero);
}

int64_t product(std::span<const uint8_t> a, std::span<const int8_t> w) {
  // Pieces whose sum stays within int32 (4096 * 255 * 128 < 2^31) let the compiler use vectors.
  constexpr size_t piece = 4096;
  int64_t sum = 0;
  for (size_t first = 0; first < a.size(); first += piece) {
    const size_t end = std::min(first + piece, a.size());
    int32_t part = 0;
    for (size_t k = first; k < end; ++k) part += int32_t{a[k]} * int32_t{w[k]};
    sum += part;
  }
  return sum;
}

int32_t checked_sum(int64_t t) {
  REPQUANT_CHECK(t == static_cast<int64_t>(static_cast<int32_t>(t)));
  return static_cast<int32_t>(t);
}

// int32 sums to codes, or to floats with an optional residual: the two ways out of a product.
class ProductOutput {
 public:
  explicit ProductOutput(const StepContext& c)
      : c_(c),
        codes_out_(c.out.dtype() == DType::kU8),
        constants_(c.plan.tensor(c.step, "c").as<int32_t>()),
        scales_(c.reals(codes_out_ ? "m" : "s")) {
    if (codes_out_) codes_ = CodeOutput(c);
    if (const Tensor* lut = c.plan.find_tensor(c.step, "lut")) table_ = lut->as<uint8_t>();
    if (!codes_out_) biases_ = c.reals("b");
    if (const Tensor* zw = c.plan.find_tensor(c.step, "zw")) zeros_ = zw->as<int32_t>();
    if (c.in.size() == 2) residual_ = c.in[1]->as<float>();
  }

  // Element i of the output, column n; `centred`: sum of (a - za).
  void put(size_t i, size_t n, int64_t product, int64_t centred) const {
    const int64_t zero = zeros_.empty() ? 0 : int64_t{zeros_[n]};
    const int32_t t = checked_sum(product + constants_[n] - zero * centred);
    if (codes_out_) {
      const int32_t code = requantize(t, scales_[n], codes_.zero, codes_.lo, codes_.hi);
      c_.out.as<uint8_t>()[i] =
          table_.empty() ? static_cast<uint8_t>(code) : table_[static_cast<size_t>(code)];
      return;
    }
    const float y = std::fmaf(static_cast<float>(t), scales_[n], biases_[n]);
    c_.out.as<float>()[i] = residual_.empty() ? y : residual_[i] + y;
  }

 private:
  const StepContext& c_;
  bool codes_out_;
  std::span<const int32_t> constants_, zeros_;
  std::span<const float> scales_, biases_, residual_;
  std::span<const uint8_t> table_;
  CodeOutput codes_;
};

void products_of_rows(const StepContext& c, std::span<const uint8_t> a, size_t k, size_t n) {
  const size_t rows = a.size() / k;
  const int64_t za = c.integer("za");
  const ProductOutput output(c);
  for (size_t row = 0; row < rows; ++row) {
    const auto codes_in = a.subspan(row * k, k);
    int64_t centred = 0;  // sum of (a - za)
    for (const uint8_t code : codes_in) centred += int64_t{code} - za;
    for (size_t o = 0; o < n; ++o)
      output.put(row * n + o, o, product(codes_in, c.weights.subspan(o * k, k)), centred);
  }
}

void linear(const StepContext& c) {
  products_of_rows(c, c.in[0]->as<uint8_t>(), static_cast<size_t>(c.in[0]->shape().back()),
                   static_cast<size_t>(c.out.shape().back()));
}

// The code at a place of the image, `outside` beyond its edges.
int32_t image_code(const Tensor& image, int64_t y, int64_t x, int64_t channel, int32_t outside) {
  const Shape& shape = image.shape();
  if (y < 0 || x < 0 || y >= shape[0] || x >= shape[1]) return outside;
  return image.as<uint8_t>()[static_cast<size_t>((y * shape[1] + x) * shape[2] + channel)];
}

// The codes of all windows, [OH, OW, kh*kw*C], OW windows a line.
void copy_windows(const StepContext& c, int64_t columns, int32_t fill, std::span<uint8_t> out) {
  const Window w = Window::of(c.step);
  const int64_t channels = c.in[0]->shape()[2];
  for (int64_t i = 0; i < static_cast<int64_t>(out.size()); ++i) {
    const int64_t channel = i % channels, kx = i / channels % w.width,
                  ky = i / channels / w.width % w.height;
    const int64_t place = i / (channels * w.width * w.height);
    const int64_t oy = place / columns, ox = place % columns;
    out[static_cast<size_t>(i)] = static_cast<uint8_t>(
        image_code(*c.in[0], oy * w.stride_y + ky * w.dilation_y - w.top,
                   ox * w.stride_x + kx * w.dilation_x - w.left, channel, fill));
  }
}

void patches(const StepContext& c) {
  copy_windows(c, c.out.shape()[1], c.integer("fill"), c.out.as<uint8_t>());
}

void conv(const StepContext& c) {
  const auto n = static_cast<size_t>(c.out.shape().back());
  const size_t k = c.weights.size() / n;
  std::vector<uint8_t> windows(static_cast<size_t>(c.out.size()) / n * k);
  copy_windows(c, c.out.shape()[1], c.integer("za"), windows);
  products_of_rows(c, windows, k, n);
}

void depthwise(const StepContext& c) {
  const Window w = Window::of(c.step);
  const int64_t columns = c.out.shape()[1], channels = c.out.shape()[2];
  const int32_t za = c.integer("za");
  const ProductOutput output(c);
  for (int64_t i = 0; i < c.out.size(); ++i) {
    const int64_t channel = i % channels, ox = i / channels % columns, oy = i / channels / columns;
    int64_t sum = 0, centred = 0;
    for (int64_t k = 0; k < w.height * w.width; ++k) {
      const int32_t code =
          image_code(*c.in[0], oy * w.stride_y + k / w.width * w.dilation_y - w.top,
                     ox * w.stride_x + k % w.width * w.dilation_x - w.left, channel, za);
      sum += int64_t{code} * c.weights[static_cast<size_t>(channel * w.height * w.width + k)];
      centred += code - za;
    }
    output.put(static_cast<size_t>(i), static_cast<size_t>(channel), sum, centred);
  }
}

void pad(const StepContext& c) {
  const std::vector<int64_t>& before = c.step.lists.at("before");
  const Shape &from = c.in[0]->shape(), &to = c.out.shape();
  const size_t width = size_of(c.out.dtype());
  auto* out = static_cast<std::byte*>(c.out.data());
  const bool codes = c.out.dtype() == DType::kU8;
  std::memset(out, codes ? c.integer("fill") : 0, c.out.bytes());
  const auto* in = static_cast<const std::byte*>(c.in[0]->data());
  for (int64_t i = 0; i < c.in[0]->size(); ++i) {
    int64_t rest = i, offset = 0, stride = 1;
    for (size_t axis = from.size(); axis-- > 0;) {
      offset += (rest % from[axis] + before[axis]) * stride;
      rest /= from[axis];
      stride *= to[axis];
    }
    std::memcpy(out + static_cast<size_t>(offset) * width, in + static_cast<size_t>(i) * width,
                width);
  }
}

// Rows through `law`, then as they are or rounded to codes.
template <class Law> void norm(const StepContext& c, Law&& law) {
  const auto x = c.in[0]->as<float>();
  const auto width = static_cast<size_t>(c.plan.tensor(c.step, "g").size());
  std::vector<float> row(width);
  const bool codes_out = c.out.dtype() == DType::kU8;
  const CodeOutput codes = codes_out ? CodeOutput(c) : CodeOutput();
  for (size_t first = 0; first < x.size(); first += width) {
    law(x.subspan(first, width), std::span<float>(row));
    for (size_t i = 0; i < width; ++i) {
      if (codes_out) {
        c.out.as<uint8_t>()[first + i] = codes.round(row[i]);
      } else {
        c.out.as<float>()[first + i] = row[i];
      }
    }
  }
}

void layer_norm(const StepContext& c) {
  const auto g = c.reals("g"), beta = c.reals("beta");
  const float eps = c.reals("eps")[0];
  norm(c,
       [&](std::span<const float> x, std::span<float> y) { layer_norm_row(x, g, beta, eps, y); });
}

void rms_norm(const StepContext& c) {
  const Tensor* shift = c.plan.find_tensor(c.step, "beta");
  const auto g = c.reals("g");
  const auto beta = shift == nullptr ? std::span<const float>() : shift->as<float>();
  const float eps = c.reals("eps")[0];
  norm(c, [&](std::span<const float> x, std::span<float> y) { rms_norm_row(x, g, beta, eps, y); });
}

// The second operand of an element-wise step: an input, or a constant repeated over the rows.
template <class Operation> void element_wise(const StepContext& c, Operation&& operation) {
  const auto x = c.in[0]->as<float>();
  const auto other = c.in.size() == 2 ? c.in[1]->as<float>() : c.reals("const");
  auto y = c.out.as<float>();
  for (size_t i = 0; i < x.size(); ++i) y[i] = operation(x[i], other[i % other.size()]);
}

void add(const StepContext& c) { element_wise(c, std::plus<float>()); }
void mul(const StepContext& c) { element_wise(c, std::multiplies<float>()); }

// Moves work on bytes, whatever the element.
void prepend(const StepContext& c) {
  const Tensor& front = c.plan.tensor(c.step, "const");
  auto* out = static_cast<std::byte*>(c.out.data());
  std::memcpy(out, front.data(), front.bytes());
  std::memcpy(out + front.bytes(), c.in[0]->data(), c.in[0]->bytes());
}

void slice(const StepContext& c) {
  const std::vector<int64_t>& range = c.step.lists.at("range");
  const Shape& shape = c.in[0]->shape();
  const size_t axis = static_cast<size_t>(range[0]);
  size_t outer = 1, inner = size_of(c.out.dtype());
  for (size_t i = 0; i < axis; ++i) outer *= static_cast<size_t>(shape[i]);
  for (size_t i = axis + 1; i < shape.size(); ++i) inner *= static_cast<size_t>(shape[i]);
  const auto* in = static_cast<const std::byte*>(c.in[0]->data());
  auto* out = static_cast<std::byte*>(c.out.data());
  for (size_t o = 0; o < outer; ++o) {
    for (int64_t i = range[1]; i < range[2]; i += range[3]) {
      std::memcpy(out, in + (o * static_cast<size_t>(shape[axis]) + static_cast<size_t>(i)) * inner,
                  inner);
      out += inner;
    }
  }
}

void transpose(const StepContext& c) {
  const std::vector<int64_t>& dims = c.step.lists.at("dims");
  const std::vector<int64_t>& perm = c.step.lists.at("perm");
  std::vector<int64_t> strides(dims.size(), 1);
  for (size_t i = dims.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * dims[i];
  const size_t width = size_of(c.out.dtype());
  const auto* in = static_cast<const std::byte*>(c.in[0]->data());
  auto* out = static_cast<std::byte*>(c.out.data());
  for (int64_t i = 0; i < c.out.size(); ++i) {
    int64_t rest = i, offset = 0;
    for (size_t axis = perm.size(); axis-- > 0;) {
      const size_t from = static_cast<size_t>(perm[axis]);
      offset += rest % dims[from] * strides[from];
      rest /= dims[from];
    }
    std::memcpy(out + static_cast<size_t>(i) * width, in + static_cast<size_t>(offset) * width,
                width);
  }
}

void mean_rows(const StepContext& c) {
  const auto x = c.in[0]->as<float>();
  const int64_t width = c.in[0]->shape().back(), rows = c.in[0]->size() / width;
  auto y = c.out.as<float>();
  for (int64_t i = 0; i < width; ++i) {
    const float sum =
        lane_sum(rows, [&](int64_t row) { return x[static_cast<size_t>(row * width + i)]; });
    y[static_cast<size_t>(i)] = sum / static_cast<float>(rows);
  }
}

}  // namespace

StepFunction step_function(const std::string& op) {
  static const std::map<std::string, StepFunction> functions = {{"quantize", quantize},
                                                                {"quantize_log", quantize_log},
                                                                {"table", table},
                                                                {"dequantize", dequantize},
                                                                {"linear", linear},
                                                                {"patches", patches},
                                                                {"conv", conv},
                                                                {"depthwise", depthwise},
                                                                {"pad", pad},
                                                                {"attention", attention},
                                                                {"l2_norm", l2_norm},
                                                                {"softmax", softmax},
                                                                {"matmul", matmul},
                                                                {"copy_rows", copy_rows},
                                                                {"layer_norm", layer_norm},
                                                                {"rms_norm", rms_norm},
                                                                {"activation", activation},
                                                                {"binary", binary},
                                                                {"concat", concat},
                                                                {"max_pool", max_pool},
                                                                {"average_pool", average_pool},
                                                                {"reduce", reduce},
                                                                {"gather_rows", gather_rows},
                                                                {"cast", cast},
                                                                {"add", add},
                                                                {"mul", mul},
                                                                {"prepend", prepend},
                                                                {"slice", slice},
                                                                {"transpose", transpose},
                                                                {"mean_rows", mean_rows}};
  const auto found = functions.find(op);
  if (found == functions.end()) {
    throw Error(ErrorCode::kUnsupported,
                "simulate: step op \"" + op + "\" is not known to this build");
  }
  return found->second;
}

}  // namespace repquant::simulate
