#pragma once
// Measurement rows: everything a run measured, in the order it was measured.
#include <string>
#include <vector>

namespace repquant {

struct Measurement {
  std::string stage;    // "reconstruct"
  std::string subject;  // "blocks.0.fc1"
  std::string metric;   // "sqnr_db", "cosine", "output_mse", "seconds", ...
  double value = 0.0;
  bool operator==(const Measurement&) const = default;
};

class Report {
 public:
  void add(Measurement row) { rows_.push_back(std::move(row)); }
  const std::vector<Measurement>& rows() const { return rows_; }

 private:
  std::vector<Measurement> rows_;
};

}  // namespace repquant
