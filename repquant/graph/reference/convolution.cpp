#include <algorithm>
#include <cmath>

#include "repquant/graph/reference/kernels.h"

namespace repquant::reference {
namespace {

// Spatial sizes of one or two dimensions; one is treated as a height of 1.
struct Geometry {
  int64_t batch, groups, in_channels, out_channels;   // channels a group
  int64_t in[2], out[2], kernel[2], stride[2], dilation[2], begin[2];
};

std::vector<int64_t> pair_of(const Node& node, const std::string& name, size_t count,
                             int64_t fallback) {
  auto values = node.attrs.integers(name, std::vector<int64_t>(count, fallback));
  if (values.empty()) values.assign(count, fallback);
  return values;
}

struct Spatial {
  std::vector<int64_t> stride, dilation, pads, extra;   // extra: output_padding
};

std::optional<Spatial> spatial_of(const Node& node, size_t dims) {
  Spatial s{pair_of(node, "strides", dims, 1), pair_of(node, "dilations", dims, 1),
            pair_of(node, "pads", 2 * dims, 0), pair_of(node, "output_padding", dims, 0)};
  if (s.stride.size() != dims || s.dilation.size() != dims || s.pads.size() != 2 * dims ||
      s.extra.size() != dims) {
    return std::nullopt;
  }
  for (const auto* list : {&s.stride, &s.dilation, &s.pads, &s.extra}) {
    for (const int64_t v : *list) {
      if (v < 0 || v > INT32_MAX) return std::nullopt;
    }
  }
  const std::string mode = node.attrs.text("auto_pad", "NOTSET");
  if (mode != "NOTSET" && mode != "VALID") return std::nullopt;
  return s;
}

std::optional<Geometry> geometry(const Node& node, const Tensor& x, const Tensor& w,
                                 bool transposed) {
  const size_t dims = x.shape().size() - 2;
  if (x.rank() < 3 || dims > 2 || w.rank() != x.rank()) return std::nullopt;
  const auto s = spatial_of(node, dims);
  const int64_t groups = node.attrs.integer("group", 1);
  if (!s || groups < 1 || w.shape()[0] % groups != 0 || x.shape()[1] % groups != 0)
    return std::nullopt;
  Geometry g{x.shape()[0],
             groups,
             x.shape()[1] / groups,
             transposed ? w.shape()[1] : w.shape()[0] / groups,
             {1, 1},
             {1, 1},
             {1, 1},
             {1, 1},
             {1, 1},
             {0, 0}};
  if (transposed ? w.shape()[0] != x.shape()[1] : w.shape()[1] != g.in_channels)
    return std::nullopt;
  for (size_t d = 0; d < dims; ++d) {
    const size_t at = d + 2 - dims;
    g.in[at] = x.shape()[d + 2];
    g.kernel[at] = w.shape()[d + 2];
    g.stride[at] = s->stride[d];
    g.dilation[at] = s->dilation[d];
    g.begin[at] = s->pads[d];
    const int64_t extent = (g.kernel[at] - 1) * g.dilation[at] + 1,
                  pads = s->pads[d] + s->pads[d + dims];
    if (g.stride[at] < 1 || g.dilation[at] < 1) return std::nullopt;
    g.out[at] = transposed ? (g.in[at] - 1) * g.stride[at] + extent - pads + s->extra[d]
                           : (g.in[at] + pads - extent) / g.stride[at] + 1;
    if (g.out[at] < 1 || (!transposed && g.in[at] + pads < extent)) return std::nullopt;
  }
  const std::vector<int64_t> result{g.batch, groups * g.out_channels, g.out[0], g.out[1]};
  return too_large(result) ? std::nullopt : std::optional(g);
}

// One input plane and one kernel into one output plane. `scatter`: the roles of input and output change.
void add_plane(const Geometry& g, const double* in, const double* kernel, double* out,
               bool scatter) {
  const int64_t rows = scatter ? g.in[0] : g.out[0], cols = scatter ? g.in[1] : g.out[1];
  const int64_t far_rows = scatter ? g.out[0] : g.in[0], far_cols = scatter ? g.out[1] : g.in[1];
  for (int64_t ky = 0; ky < g.kernel[0]; ++ky) {
    for (int64_t kx = 0; kx < g.kernel[1]; ++kx) {
      const double weight = kernel[ky * g.kernel[1] + kx];
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t y = r * g.stride[0] + ky * g.dilation[0] - g.begin[0];
        if (y < 0 || y >= far_rows) continue;
        for (int64_t c = 0; c < cols; ++c) {
          const int64_t x = c * g.stride[1] + kx * g.dilation[1] - g.begin[1];
          if (x < 0 || x >= far_cols) continue;
          if (scatter) out[y * far_cols + x] += weight * in[r * cols + c];
          else out[r * cols + c] += weight * in[y * far_cols + x];
        }
      }
    }
  }
}

}   // namespace

Outputs convolution(const Node& node, Inputs inputs) {
  const bool transposed = node.op == OpKind::kConvTranspose;
  if ((node.op != OpKind::kConv && !transposed) || !input(inputs, 0) || !input(inputs, 1))
    return std::nullopt;
  const Tensor &x = *inputs[0], &w = *inputs[1], *bias = input(inputs, 2);
  if (x.rank() < 3 || !is_float(x.dtype())) return std::nullopt;
  const auto g = geometry(node, x, w, transposed);
  const auto values = to_doubles(x), weights = to_doubles(w);
  if (!g || !values || !weights) return std::nullopt;
  const int64_t channels = g->groups * g->out_channels;
  const int64_t in_plane = g->in[0] * g->in[1], out_plane = g->out[0] * g->out[1],
                taps = g->kernel[0] * g->kernel[1];
  const auto offsets =
      bias ? to_doubles(*bias) : std::vector<double>(static_cast<size_t>(channels), 0.0);
  if (!offsets || static_cast<int64_t>(offsets->size()) != channels) return std::nullopt;
  std::vector<double> out(static_cast<size_t>(g->batch * channels * out_plane));
  for (int64_t n = 0; n < g->batch; ++n) {
    for (int64_t o = 0; o < channels; ++o) {
      double* plane = out.data() + (n * channels + o) * out_plane;
      std::fill(plane, plane + out_plane, (*offsets)[static_cast<size_t>(o)]);
      const int64_t group = o / g->out_channels;
      for (int64_t i = 0; i < g->in_channels; ++i) {
        const int64_t c = group * g->in_channels + i;
        const int64_t kernel =
            transposed ? c * g->out_channels + o % g->out_channels : o * g->in_channels + i;
        add_plane(*g, values->data() + (n * g->groups * g->in_channels + c) * in_plane,
                  weights->data() + kernel * taps, plane, transposed);
      }
    }
  }
  Shape shape{g->batch, channels};
  if (x.rank() == 4) shape.push_back(g->out[0]);
  shape.push_back(g->out[1]);
  return one(from_doubles(x.dtype(), shape, out));
}

Outputs batch_norm(const Node& node, Inputs inputs) {
  if (node.op != OpKind::kBatchNorm || inputs.size() < 5 ||
      node.attrs.integer("training_mode", 0) != 0) {
    return std::nullopt;
  }
  for (size_t i = 0; i < 5; ++i) {
    if (!inputs[i]) return std::nullopt;
  }
  auto x = to_doubles(*inputs[0]);
  const auto scale = to_doubles(*inputs[1]), shift = to_doubles(*inputs[2]),
             mean = to_doubles(*inputs[3]), variance = to_doubles(*inputs[4]);
  const Shape& shape = inputs[0]->shape();
  if (!x || !scale || !shift || !mean || !variance || shape.size() < 2) return std::nullopt;
  const auto channels = static_cast<size_t>(shape[1]);
  for (const auto* v : {&*scale, &*shift, &*mean, &*variance}) {
    if (v->size() != channels) return std::nullopt;
  }
  const auto inner = static_cast<size_t>(row_major_strides(shape)[1]);
  const double epsilon = node.attrs.real("epsilon", 1e-5F);
  for (size_t i = 0; i < x->size(); ++i) {
    const size_t c = i / inner % channels;
    (*x)[i] =
        ((*x)[i] - (*mean)[c]) / std::sqrt((*variance)[c] + epsilon) * (*scale)[c] + (*shift)[c];
  }
  return one(from_doubles(inputs[0]->dtype(), shape, *x));
}

}   // namespace repquant::reference
