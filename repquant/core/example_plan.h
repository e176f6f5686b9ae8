#pragma once
// A small valid plan with every op, for tests and fuzz seeds.
#include "repquant/core/plan.h"

namespace repquant {

Plan example_plan();

}  // namespace repquant
