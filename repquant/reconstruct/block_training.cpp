#include "repquant/reconstruct/block_training.h"

#include <algorithm>
#include <cmath>

#include "repquant/core/format/uniform.h"
#include "repquant/core/random.h"
#include "repquant/quantize/fake_quantize.h"

namespace repquant::reconstruct {
namespace {

struct WeightVariable {
  at::Tensor units;      // W / s as [N, K], trained
  at::Tensor log_scale;  // [N, 1]
  QParams params;
  Shape shape;
};

// w = s (clamp(rne(v), lo - z, hi - z)), straight-through inside.
struct RoundUnits : torch::autograd::Function<RoundUnits> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& units,
                            const at::Tensor& low, const at::Tensor& high) {
    ctx->save_for_backward({units.ge(low - 0.5).logical_and_(units.le(high + 0.5))});
    return at::minimum(at::maximum(units.round(), low), high);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    return {grads[0] * ctx->get_saved_variables()[0], at::Tensor(), at::Tensor()};
  }
};

struct Rate {
  at::Tensor variable;
  double lr;
};

class Trainer {
 public:
  Trainer(Workspace& ws, const observe::Block& block, const std::map<NodeId, at::Tensor>& latent,
          const TrainingOptions& options)
      : ws_(ws), block_(block), options_(options), interpreter_(ws.graph, ws.weights) {
    for (const NodeId id : block.nodes) add_node(id, latent);
  }

  bool empty() const { return rates_.empty(); }

  void step(const at::Tensor& x, const at::Tensor& target, int index, int total) {
    const int64_t shards = std::min<int64_t>(2, x.size(0));
    std::vector<std::vector<at::Tensor>> grads(static_cast<size_t>(shards));
    const std::vector<at::Tensor> xs = x.chunk(shards), ts = target.chunk(shards);
    std::vector<at::Tensor> variables;
    for (const Rate& rate : rates_) variables.push_back(rate.variable);
    for_each_index(*ws_.pool, static_cast<int64_t>(xs.size()), [&](int64_t i) {
      const at::AutoGradMode grad(true);
      const auto s = static_cast<size_t>(i);
      const at::Tensor loss = weighted((forward(xs[s]) - ts[s]).square()).sum();
      grads[s] =
          torch::autograd::grad({loss}, variables, {}, std::nullopt, false, /*allow_unused=*/true);
    });
    const double cosine = 0.5 * (1 + std::cos(M_PI * index / total));
    for (size_t v = 0; v < rates_.size(); ++v) {
      at::Tensor g;
      for (size_t s = 0; s < xs.size(); ++s) {
        if (!grads[s][v].defined()) continue;
        g = g.defined() ? g + grads[s][v] : grads[s][v];
      }
      if (g.defined()) adam(v, g, rates_[v].lr * cosine, index + 1);
    }
  }

  double error(const at::Tensor& x, const at::Tensor& target) {
    constexpr int64_t piece = 8;
    const int64_t pieces = (x.size(0) + piece - 1) / piece;
    std::vector<double> sums(static_cast<size_t>(pieces));
    for_each_index(*ws_.pool, pieces, [&](int64_t i) {
      const int64_t begin = i * piece, end = std::min(begin + piece, x.size(0));
      const at::Tensor difference = forward(x.slice(0, begin, end)) - target.slice(0, begin, end);
      sums[static_cast<size_t>(i)] =
          weighted(difference.to(at::kDouble).square()).sum().item<double>();
    });
    double total = 0;
    for (const double s : sums) total += s;
    return total / static_cast<double>(target.numel());
  }

  // Writes the trained values back: weights on their grid, scales into the plan.
  void commit() {
    const at::NoGradGuard no_grad;
    for (auto& [id, variable] : weights_) {
      const at::Tensor scale = variable.log_scale.exp().contiguous();
      Assignment& assignment = *ws_.plan.find(Site{id, 1});
      for (size_t r = 0; r < assignment.params.scale.size(); ++r) {
        assignment.params.scale[r] = scale.data_ptr<float>()[r];
      }
      const auto [low, high] = limits(variable);
      const at::Tensor codes = at::minimum(at::maximum(variable.units.round(), low), high);
      ws_.set_constant(id, 1, (codes * scale).reshape(variable.shape).contiguous());
    }
    for (auto& [site, log_scale] : scales_) {
      const at::Tensor scale = log_scale.exp().contiguous();
      Assignment& assignment = *ws_.plan.find(site);
      for (size_t i = 0; i < assignment.params.scale.size(); ++i) {
        assignment.params.scale[i] = scale.data_ptr<float>()[i];
      }
    }
    for (auto& [site, value] : others_)
      ws_.set_constant(site.node, site.input, value.detach().clone());
  }

 private:
  at::Tensor weighted(const at::Tensor& squares) const {
    return options_.importance.defined() ? squares * options_.importance : squares;
  }

  void add(const at::Tensor& variable, double lr) {
    rates_.push_back({variable, lr});
    first_.push_back(at::zeros_like(variable));
    second_.push_back(at::zeros_like(variable));
  }

  static at::Tensor variable(const at::Tensor& value) {
    return value.detach().clone().requires_grad_(true);
  }

  void add_node(NodeId id, const std::map<NodeId, at::Tensor>& latent) {
    const Node& node = ws_.graph.node(id);
    const bool norm = node.op == OpKind::kLayerNorm || node.op == OpKind::kRmsNorm;
    if (norm && ws_.has_constant(id, 1) && ws_.has_constant(id, 2)) {
      for (const int input : {1, 2}) add_other(Site{id, input}, options_.lr_norm);
    }
    const bool conv = node.op == OpKind::kConv;
    if ((node.op == OpKind::kLinear || conv) && ws_.has_constant(id, 2))
      add_other(Site{id, 2}, options_.lr_bias);
    if (options_.weights) add_weight(id, latent);
    // Ranges of images stay: clips before them are decided by where their codes end.
    if (conv) return;
    for (const int input : {0, 1, 2, kProbabilities}) add_scale(Site{id, input});
  }

  void add_other(const Site& site, double lr) {
    others_[site] = variable(ws_.constant(site.node, site.input));
    add(others_[site], lr);
  }

  void add_weight(NodeId id, const std::map<NodeId, at::Tensor>& latent) {
    const Assignment* assignment = ws_.plan.find(Site{id, 1});
    const OpKind op = ws_.graph.node(id).op;
    if ((op != OpKind::kLinear && op != OpKind::kConv) || assignment == nullptr) return;
    const at::Tensor stored = ws_.constant(id, 1);
    const at::Tensor rounded = stored.reshape({stored.size(0), -1});
    const at::Tensor scale = at::tensor(assignment->params.scale).reshape({-1, 1});
    const auto found = latent.find(id);
    const at::Tensor start =
        found == latent.end() ? rounded : found->second.reshape(rounded.sizes());
    const at::Tensor cell = ((start - rounded) / scale).clamp(-0.49, 0.49);
    WeightVariable& weight = weights_[id];
    weight.params = assignment->params;
    weight.shape = Shape(stored.sizes().begin(), stored.sizes().end());
    weight.units = variable((rounded / scale).round() + cell);
    weight.log_scale = variable(scale.log());
    add(weight.units, options_.lr_weight);
    add(weight.log_scale, options_.lr_scale);
  }

  void add_scale(const Site& site) {
    const Assignment* assignment = ws_.plan.find(site);
    if (assignment == nullptr || assignment->role != Role::kActivation) return;
    if (site.input == kProbabilities &&
        !std::holds_alternative<Log>(assignment->params.spec.format))
      return;
    scales_[site] = variable(at::tensor(assignment->params.scale).log());
    add(scales_[site], options_.lr_scale);
  }

  static std::pair<at::Tensor, at::Tensor> limits(const WeightVariable& weight) {
    const CodeRange range =
        code_range(weight.params.spec.bits, std::get<Uniform>(weight.params.spec.format));
    std::vector<float> low, high;
    for (size_t r = 0; r < weight.params.scale.size(); ++r) {
      const int32_t z = weight.params.zero_point.empty() ? 0 : weight.params.zero_point[r];
      low.push_back(static_cast<float>(range.lo - z));
      high.push_back(static_cast<float>(range.hi - z));
    }
    return {at::tensor(low).reshape({-1, 1}), at::tensor(high).reshape({-1, 1})};
  }

  at::Tensor forward(const at::Tensor& x) {
    ValueMap values{{block_.input, x}};
    const ValueId keep[] = {block_.output};
    interpreter_.run_nodes(block_.nodes, values, keep,
                           [this](const Site& site, const at::Tensor& t) { return hook(site, t); });
    return values.at(block_.output);
  }

  at::Tensor hook(const Site& site, const at::Tensor& tensor) {
    if (site.input == 1) {
      const auto weight = weights_.find(site.node);
      if (weight != weights_.end()) {
        const auto [low, high] = limits(weight->second);
        const at::Tensor codes = RoundUnits::apply(weight->second.units, low, high);
        return (codes * weight->second.log_scale.exp()).reshape(weight->second.shape);
      }
    }
    const auto other = others_.find(site);
    if (other != others_.end()) return other->second;
    const auto scale = scales_.find(site);
    const Assignment* assignment = ws_.plan.find(site);
    if (assignment == nullptr || assignment->role == Role::kWeight) return tensor;
    const bool heads_axis = site.input == kProbabilities;
    if (scale == scales_.end()) {  // row codes: straight through
      return tensor +
             (quantize::fake_quantize(tensor, assignment->params, heads_axis) - tensor).detach();
    }
    if (std::holds_alternative<Log>(assignment->params.spec.format)) {
      return quantize::fake_log_learned(tensor, scale->second, assignment->params);
    }
    return quantize::fake_quantize_learned(tensor, scale->second, assignment->params);
  }

  void adam(size_t v, const at::Tensor& g, double lr, int t) {
    const at::NoGradGuard no_grad;
    first_[v].mul_(0.9).add_(g, 0.1);
    second_[v].mul_(0.999).addcmul_(g, g, 0.001);
    const double c1 = 1 - std::pow(0.9, t), c2 = 1 - std::pow(0.999, t);
    const at::Tensor denominator = (second_[v] / c2).sqrt_().add_(1e-12);
    rates_[v].variable.addcdiv_(first_[v], denominator, -lr / c1);
  }

  Workspace& ws_;
  const observe::Block& block_;
  const TrainingOptions& options_;
  Interpreter interpreter_;
  std::map<NodeId, WeightVariable> weights_;
  std::map<Site, at::Tensor> scales_, others_;
  std::vector<Rate> rates_;
  std::vector<at::Tensor> first_, second_;
};

}  // namespace

TrainingResult train_block(Workspace& ws, const observe::Block& block,
                           const observe::Chunks& inputs, const observe::Chunks& targets,
                           const std::map<NodeId, at::Tensor>& latent,
                           const TrainingOptions& options, uint64_t seed) {
  const at::Tensor x = at::cat(inputs), y = at::cat(targets);
  const int64_t count = x.size(0);
  const int64_t held =
      std::max<int64_t>(1, static_cast<int64_t>(options.held_out * static_cast<double>(count)));
  const int64_t train = count - held;
  TrainingResult result;
  Trainer trainer(ws, block, latent, options);
  const at::Tensor x_held = x.slice(0, train), y_held = y.slice(0, train);
  result.before = trainer.error(x_held, y_held);
  result.after = result.before;
  if (train < 1 || trainer.empty()) return result;
  uint64_t state = seed;
  for (int step = 0; step < options.steps; ++step) {
    ws.throw_if_stopped();
    std::vector<int64_t> pick;
    for (int i = 0; i < options.batch; ++i) {
      pick.push_back(static_cast<int64_t>(splitmix64(state) % static_cast<uint64_t>(train)));
    }
    const at::Tensor index = at::tensor(pick);
    trainer.step(x.index_select(0, index), y.index_select(0, index), step, options.steps);
  }
  const double after = trainer.error(x_held, y_held);
  if (after < result.before) {
    result.after = after;
    trainer.commit();
  }
  return result;
}

}  // namespace repquant::reconstruct
