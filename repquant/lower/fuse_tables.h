#pragma once
// Fusion on the finished step list.
#include "repquant/core/plan.h"

namespace repquant::lowering {

// A `table` whose codes come from a `linear` or `conv` that nobody else reads becomes the `lut` of
// that step. The product's result is then the table's buffer; the buffer between them is dropped.
void fuse_tables(Plan& plan);

}  // namespace repquant::lowering
