#pragma once
// Which sites a scheme quantizes, and with how many bits.
#include <map>
#include <vector>

#include "repquant/interpret/workspace.h"
#include "repquant/pipeline/scheme.h"

namespace repquant {

// Linears and convolutions with constant weights, and attention operands. Convolutions that read
// the image and their weights take 8 bits, whatever the scheme. Throws kInvalidArgument for a rule
// that matches nothing.
std::map<Site, SiteTarget> make_targets(const Workspace& ws, const Scheme& scheme,
                                        const std::vector<LayerRule>& rules);

}  // namespace repquant
