#pragma once
// What must hold before tiles are used: the system's permission, and a unit that keeps its tiles.
#include <cstdint>

namespace repquant::runtime {

// Asks the system for tile registers; 0, or the error number of the refusal. Harmless when
// repeated.
int request_tile_permission();
// Products of 64 blocks against plain loops, the thread giving way between the instructions. Needs
// the permission.
bool tiles_keep_their_sums();
// Runs the tile products of a register peak; returns the operations done. Needs the permission.
double tile_register_operations();

}  // namespace repquant::runtime
