#pragma once
// The generator behind every draw that must be the same on every machine.
#include <cstdint>

namespace repquant {

// splitmix64 (Steele, Lea and Flood, 2014): advances `state`, returns the next of 2^64 outputs.
inline uint64_t splitmix64(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace repquant
