#pragma once
// Arithmetic on dimensions: numbers where both are known, otherwise symbols whose text is the
// expression ("2*height", "(n+1)", "floor((w+3)/2)"), so that equal texts mean equal sizes. What
// cannot be said is unknown. Overflow of known sizes throws kCorruptFile.
#include <optional>
#include <span>

#include "repquant/graph/graph.h"

namespace repquant {

inline Dim known_dim(int64_t size) { return Dim{size, {}}; }
inline bool is_unknown(const Dim& dim) { return !dim.known() && dim.symbol.empty(); }

int64_t checked_add(int64_t a, int64_t b);
int64_t checked_mul(int64_t a, int64_t b);

Dim multiply(const Dim& a, const Dim& b);
Dim product(std::span<const Dim> dims);                      // 1 when empty
Dim add(const Dim& a, const Dim& b);
Dim add(const Dim& a, int64_t b);                            // known results below 0 become 0
Dim floor_divide(const Dim& a, int64_t b);                   // b > 0
std::optional<Dim> divide(const Dim& a, const Dim& b);       // exact; nullopt where not provable
// One size that both may have: known wins over a symbol; nullopt when they contradict.
std::optional<Dim> merge(const Dim& a, const Dim& b);
// As merge, but 1 stretches to the other. Two different symbols give unknown.
std::optional<Dim> broadcast(const Dim& a, const Dim& b);

}  // namespace repquant
