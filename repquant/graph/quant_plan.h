#pragma once
// Which places of a graph are quantized, and how. Calibration writes it, lowering reads it.
#include <map>
#include <optional>
#include <string>

#include "repquant/core/quant_spec.h"
#include "repquant/graph/graph.h"

namespace repquant {

// One quantizable place: the input `input` of a node. The probabilities inside a
// multi_head_attention have the index kProbabilities.
struct Site {
  NodeId node = -1;
  int input = 0;
  auto operator<=>(const Site&) const = default;
};
inline constexpr int kProbabilities = 100;

enum class Role { kWeight, kActivation };

struct Assignment {
  Role role = Role::kActivation;
  QParams params;
  std::string set_by;                 // the pass that wrote it
};

class QuantPlan {
 public:
  void set(const Site& site, Assignment assignment) { sites_[site] = std::move(assignment); }
  void erase(const Site& site) { sites_.erase(site); }
  const Assignment* find(const Site& site) const {
    const auto it = sites_.find(site);
    return it == sites_.end() ? nullptr : &it->second;
  }
  Assignment* find(const Site& site) {
    const auto it = sites_.find(site);
    return it == sites_.end() ? nullptr : &it->second;
  }
  const std::map<Site, Assignment>& all() const { return sites_; }

 private:
  std::map<Site, Assignment> sites_;
};

// "blocks.0.attn.qkv:input", "...:weight", "...:probabilities", for reports.
std::string site_name(const Graph& graph, const Site& site);

}  // namespace repquant
