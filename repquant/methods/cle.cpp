// Cross-layer equalisation (Nagel et al. 2019): between two layers the scale of every channel is
// free, f(s x) = s f(x), and is chosen so that channels share one range. High biases absorbed on
// request. Float in, float out: the function stays, what is rounded later fits its grid.
#include <algorithm>
#include <mutex>

#include <fmt/format.h>

#include "repquant/methods/method.h"
#include "repquant/reparameterize/channel_pairs.h"

namespace repquant::methods_rows {
namespace {

using reparameterize::ChannelPair;

struct Options {
  std::string ranges = "activations";
  int iterations = 20;
  double most = 64;
  bool absorb = false;
  template <class V> void visit(V&& v) {
    v(ranges, "ranges",
      "What is made equal: measured channels against the columns that read them, or (as published) "
      "rows against columns",
      Choices{{"activations", "weights"}});
    v(iterations, "iterations", "Over all pairs, at most", Between{1, 1000});
    v(most, "most", "Largest factor between channels of a pair", Between{1, 1e4});
    v(absorb, "absorb",
      "Move what every sample exceeds into the next bias; exact on those samples");
  }
};

// One pair, its channels [C] in double: largest magnitude and least value measured, the factors so
// far.
struct State {
  ChannelPair pair;
  at::Tensor size, least, factors;
  double bound = 0;  // of the clip
};

// Over batch and positions of what a layer reads.
at::Tensor by_channel(const at::Tensor& x, bool image) {
  return image ? x.transpose(0, 1).reshape({x.size(1), -1}) : x.reshape({-1, x.size(-1)}).t();
}

// One float run over the samples.
void measure(const Workspace& ws, std::vector<State>& states) {
  std::map<Site, State*> at_site;
  for (State& s : states) {
    at_site[{s.pair.second, 0}] = &s;
    s.size = at::zeros({s.pair.channels}, at::kDouble);
    s.least = at::full({s.pair.channels}, INFINITY, at::kDouble);
    s.factors = at::ones({s.pair.channels}, at::kDouble);
    if (s.pair.clip >= 0) s.bound = ws.constant(s.pair.clip, 2).item<float>();
  }
  std::mutex mutex;  // extremes: the order of samples does not show
  const Interpreter interpreter(ws.graph, ws.weights);
  for_each_index(*ws.pool, ws.calibration.count, [&](int64_t i) {
    const std::vector<at::Tensor> sample = load_inputs(ws, i, i + 1);
    (void)interpreter.run(sample, [&](const Site& site, const at::Tensor& x) {
      const auto found = at_site.find(site);
      if (found == at_site.end()) return x;
      const bool image = ws.graph.node(site.node).op == OpKind::kConv;
      const at::Tensor channels = by_channel(x, image).to(at::kDouble);
      const std::lock_guard lock(mutex);
      State& s = *found->second;
      s.size = at::maximum(s.size, channels.abs().amax(1));
      s.least = at::minimum(s.least, channels.amin(1));
      return x;
    });
  });
}

// Weights as the factors of all pairs make them.
class Scaled {
 public:
  Scaled(const Workspace& ws, const std::vector<State>& states) : ws_(ws) {
    for (const State& s : states) {
      rows_[s.pair.first] = &s;
      columns_[s.pair.second] = &s;
    }
  }
  at::Tensor rows(NodeId id) const {  // [N, C, taps], absolute values
    const at::Tensor& w = ws_.constant(id, 1);
    at::Tensor out = w.abs().to(at::kDouble).reshape({w.size(0), w.size(1), -1});
    if (const auto row = rows_.find(id); row != rows_.end())
      out = out * row->second->factors.reshape({-1, 1, 1});
    if (const auto column = columns_.find(id); column != columns_.end()) {
      const State& s = *column->second;
      out =
          out / (s.pair.depthwise ? s.factors.reshape({-1, 1, 1}) : s.factors.reshape({1, -1, 1}));
    }
    return out;
  }

 private:
  const Workspace& ws_;
  std::map<NodeId, const State*> rows_, columns_;
};

// What the channels of a pair are multiplied with to come to sqrt(r1 r2), not yet bounded.
at::Tensor wanted_factors(const Scaled& weights, const State& s, bool published) {
  const at::Tensor second = weights.rows(s.pair.second);
  if (published) {
    const at::Tensor r1 = weights.rows(s.pair.first).amax({1, 2});
    const at::Tensor r2 = s.pair.depthwise ? second.amax({1, 2}) : second.amax({0, 2});
    const at::Tensor ratio = at::sqrt(r2 / r1);
    return at::where(at::isfinite(ratio) & (ratio > 0), ratio, at::ones_like(ratio));
  }
  const at::Tensor now = s.size * s.factors;
  // Rows have scales of their own: one that reads a single channel does not care.
  if (s.pair.depthwise) return 1 / now;
  const at::Tensor share = (second / second.amax({1, 2}, true).clamp_min(1e-300)).amax({0, 2});
  return at::sqrt(share.clamp_min(1e-6) / now);
}

// One round over the pairs; the largest change of a factor, as |log|.
double equalise(const Workspace& ws, std::vector<State>& states, const Options& options) {
  const Scaled weights(ws, states);
  double change = 0;
  for (State& s : states) {
    const double top = s.size.max().item<double>();
    at::Tensor next = s.factors * wanted_factors(weights, s, options.ranges == "weights");
    next = next * (top / (next * s.size).max().item<double>());  // the range stays what it was
    next = next.clamp(1 / options.most, options.most);
    if (s.pair.clip >= 0) {
      // min(s x, s b) must end where the one range of all channels ends, or later: no factor below
      // one, and no measured channel beyond b.
      next = at::minimum(next.clamp_min(1.0), (s.bound / s.size).clamp_min(1.0));
    }
    change = std::max(change, (next / s.factors).log().abs().max().item<double>());
    s.factors = next;
  }
  return change;
}

// relu(x) = x where every x >= c: b1 - c, b2 + W2 c.
int absorb_biases(Workspace& ws, const State& s) {
  if (s.pair.padded || s.pair.pooled || s.pair.clip >= 0 || s.pair.depthwise) return 0;
  const at::Tensor c = (s.least * s.factors).clamp_min(0.0);
  if (!(c > 0).any().item<bool>()) return 0;
  for (WeightMap* map : {&ws.weights, &ws.reference}) {
    const auto of = [&](NodeId id, int input) -> at::Tensor& {
      return map->at(ws.graph.node(id).inputs[static_cast<size_t>(input)]);
    };
    const at::Tensor w = of(s.pair.second, 1).to(at::kDouble);
    const at::Tensor taps = w.reshape({w.size(0), w.size(1), -1}).sum(2);
    at::Tensor& b1 = of(s.pair.first, 2);
    at::Tensor& b2 = of(s.pair.second, 2);
    b1 = (b1.to(at::kDouble) - c).to(at::kFloat);
    b2 = (b2.to(at::kDouble) + at::mv(taps, c)).to(at::kFloat);
  }
  return static_cast<int>((c > 0).sum().item<int64_t>());
}

// Mean over channels of range / largest range: 1 when all channels use the whole grid.
double precision(const at::Tensor& size) {
  return (size / size.max().clamp_min(1e-300)).mean().item<double>();
}

void run(Workspace& ws, const Options& options) {
  if (!ws.plan.all().empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "cle: expected a float model, an earlier pass has quantized it",
                "put cle before the other passes");
  }
  std::vector<State> states;
  std::vector<std::string> refused;
  for (const ChannelPair& pair : reparameterize::channel_pairs(ws, &refused))
    states.push_back({pair, {}, {}, {}});
  if (ws.sink != nullptr)
    for (const std::string& reason : refused) ws.sink->info("cle: not equalised: " + reason);
  ws.report.add({"cle", "model", "pairs", static_cast<double>(states.size())});
  if (states.empty()) return;
  measure(ws, states);
  for (State& s : states) {
    const double top = std::max(s.size.max().item<double>(), 1e-30);
    s.size = s.size.clamp_min(top / options.most);  // a channel that never fires says nothing
  }
  for (int i = 0; i < options.iterations; ++i) {
    ws.throw_if_stopped();
    if (equalise(ws, states, options) < 1e-3) break;
  }
  for (const State& s : states) {
    const std::string& name = ws.graph.node(s.pair.first).name;
    ws.report.add({"cle", name, "channel_precision_before", precision(s.size)});
    ws.report.add({"cle", name, "channel_precision_after", precision(s.size * s.factors)});
    reparameterize::scale_channels(ws, s.pair, s.factors);
    if (!options.absorb) continue;
    ws.report.add({"cle", name, "absorbed_channels", static_cast<double>(absorb_biases(ws, s))});
  }
  ws.applied.push_back("cle");
}

}  // namespace

extern const Method cle;
constinit const Method cle = make_method<Options, run>(
    "cle", "Cross-layer equalisation: channels between two layers share one range",
    "Nagel et al. 2019 (arXiv 1906.04721)", {.data = true, .gradients = false});

}  // namespace repquant::methods_rows
