#pragma once
// Products on tiles of 32 rows by 32 columns, the last 16 rows or fewer by 64 columns, over
// whatever executes the tile instructions: the unit of the processor (amx.cpp), or the loops that
// tests put in its place.
//
// Weights lie in panels of 32 columns, two of 16 beside one another, [K/64][16][16][4]: 64 codes of
// 16 columns are a tile. K is rounded up to whole tiles, with weights of zero.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "repquant/runtime/kernels/gemm_i8/tiles512.h"

namespace repquant::runtime::amx {
namespace {

constexpr int64_t kTileRows = 16, kTileDepth = 64, kBlock = 32;
constexpr int64_t kTileBytes = kTileRows * kTileDepth;
constexpr int64_t kCopied = 128 << 10;  // bytes of rows copied at a time, or 32 rows

inline int64_t tile_steps(const GemmI8Shape& shape) {
  return (quad_depth(shape) + kTileDepth - 1) / kTileDepth;
}
inline int64_t tile_depth(const GemmI8Shape& shape) { return tile_steps(shape) * kTileDepth; }

inline size_t packed_bytes(const GemmI8Shape& shape) {
  return static_cast<size_t>(round_up(shape.n, 16) * tile_depth(shape));
}

inline void pack(const GemmI8Shape& shape, const int8_t* codes, void* packed) {
  std::memset(packed, 0, packed_bytes(shape));
  for (int64_t n = 0; n < shape.n; ++n) {
    auto* panel = static_cast<int8_t*>(packed) + n / 16 * 16 * tile_depth(shape);
    for (int64_t k = 0; k < shape.k; ++k) {
      const int64_t place = place_of(shape, k);
      panel[(place / 4 * 16 + n % 16) * 4 + place % 4] = codes[n * shape.k + k];
    }
  }
}

inline int64_t copied_rows(const GemmI8Shape& shape) {
  return std::clamp<int64_t>(kCopied / tile_depth(shape) / kBlock, 1, 8) * kBlock;
}

// Sums of rows, then sums of a block of tiles, then copied rows.
inline size_t scratch_bytes(const GemmI8Shape& shape) {
  return sums_bytes() + kBlock * kBlock * 4 +
         static_cast<size_t>(copied_rows(shape) * tile_depth(shape)) + 64;
}

// Rows of codes as tiles want them: neighbours `stride` apart, whole tiles deep, whole blocks of
// rows. Dense rows are read where they are but for the last block.
struct TileRows {
  const uint8_t* at;
  int64_t stride;
};

inline TileRows tile_rows(const GemmI8Args& args, RowCursor& cursor, int64_t rows, uint8_t* copy) {
  const int64_t depth = tile_depth(args.shape), line = line_length(args.shape);
  if (args.quad_offsets == nullptr && args.columns >= args.first + args.rows &&
      rows % kBlock == 0) {
    const uint8_t* begin = cursor.next();
    for (int64_t r = 1; r < rows; ++r) cursor.next();
    return {begin, args.stride_x};  // read to whole tiles: at most 63 bytes behind the last row
  }
  for (int64_t r = 0; r < round_up(rows, kBlock); ++r) {
    uint8_t* to = copy + r * depth;
    std::memset(to, 0, static_cast<size_t>(depth));
    if (r >= rows) continue;
    const uint8_t* row = cursor.next();
    for (int64_t l = 0; l < args.shape.lines; ++l)
      std::memcpy(to + l * line_quads(args.shape) * 4, line_of(args, row, l),
                  static_cast<size_t>(line));
  }
  return {copy, depth};
}

// Cycles that a block may take before it is done again, under a guard: four times what its tile
// products need, and what a cold start may add.
inline uint64_t cycle_limit(int64_t steps) { return 4 * (64 * static_cast<uint64_t>(steps) + 400); }

// multiply() for every step, then store(). Nothing but what is stored is written, so a block can be
// repeated: with a guard, as long as it took so much time that the tiles may have been lost in
// between.
template <class Unit, class Multiply, class Store>
inline void guarded_block(Unit& unit, int64_t steps, const Multiply& multiply, const Store& store) {
  constexpr int kMostTries = 16;
  for (int tries = 0; tries < kMostTries; ++tries) {
    const uint64_t begin = unit.guarded() ? unit.cycles() : 0;
    unit.zero();
    for (int64_t s = 0; s < steps; ++s) multiply(s);
    store();
    if (!unit.guarded() || unit.cycles() - begin <= cycle_limit(steps)) return;
  }
}

// Sums [32][32] of a block of 32 rows.
template <class Unit>
inline void block(Unit& unit, const TileRows& rows, const int8_t* panel, int64_t steps, bool two,
                  int32_t* sums) {
  const int64_t column_bytes = steps * kTileBytes;
  guarded_block(
      unit, steps,
      [&](int64_t s) {
        const uint8_t* a = rows.at + s * kTileDepth;
        const int8_t* w = panel + s * kTileBytes;
        unit.multiply(a, a + kTileRows * rows.stride, rows.stride, w, two ? w + column_bytes : w);
      },
      [&] { unit.store(sums); });
}

// Sums [16][64] of a block of 16 rows: one tile of codes, up to four of weights.
template <class Unit>
inline void flat_block(Unit& unit, const TileRows& rows, const int8_t* panel, int64_t steps,
                       int64_t tiles, int32_t* sums) {
  guarded_block(
      unit, steps,
      [&](int64_t s) {
        const int8_t* w[4];
        for (int64_t t = 0; t < 4; ++t)  // what is not there is done again, and dropped
          w[t] = panel + (t < tiles ? t : 0) * steps * kTileBytes + s * kTileBytes;
        unit.multiply_flat(rows.at + s * kTileDepth, rows.stride, w);
      },
      [&] { unit.store_flat(sums); });
}

template <bool kTwo>
REPQUANT_AVX512VNNI inline void finish_block(const GemmI8Args& args, const int32_t* sums,
                                             int64_t row, int64_t rows, int64_t first) {
  constexpr int kVectors = kTwo ? 2 : 1;
  for (int64_t r = 0; r < rows; ++r) {
    __m512i acc[1][kVectors];
    for (int v = 0; v < kVectors; ++v) acc[0][v] = _mm512_load_si512(sums + r * kBlock + 16 * v);
    tiles512::finish<1, kVectors>(args, acc, row + r, first);
  }
}

// All columns of so many rows, at most copied_rows.
template <class Unit>
REPQUANT_AVX512VNNI inline void row_block(Unit& unit, const GemmI8Args& args, const TileRows& a,
                                          int64_t row, int64_t rows, int32_t* sums) {
  const int64_t steps = tile_steps(args.shape), n = args.shape.n;
  for (int64_t first = 0; first < n; first += kBlock) {
    const int8_t* panel = static_cast<const int8_t*>(args.weights) + first * steps * kTileDepth;
    const bool two = round_up(n, 16) - first > 16;
    for (int64_t r = 0; r < rows; r += kBlock) {
      const int64_t live = std::min(kBlock, rows - r);
      block(unit, {a.at + r * a.stride, a.stride}, panel, steps, two, sums);
      if (two) finish_block<true>(args, sums, row + r, live, first);
      else finish_block<false>(args, sums, row + r, live, first);
    }
  }
}

// All columns of up to 16 rows.
template <class Unit>
REPQUANT_AVX512VNNI inline void flat_rows(Unit& unit, const GemmI8Args& args, const TileRows& a,
                                          int64_t row, int64_t rows, int32_t* sums) {
  constexpr int64_t kColumns = 64;
  const int64_t steps = tile_steps(args.shape), n = args.shape.n;
  for (int64_t first = 0; first < n; first += kColumns) {
    const int8_t* panel = static_cast<const int8_t*>(args.weights) + first * steps * kTileDepth;
    const int64_t tiles = std::min<int64_t>(4, (n - first + 15) / 16);
    flat_block(unit, a, panel, steps, tiles, sums);
    for (int64_t r = 0; r < rows; ++r) {
      __m512i acc[1][4];
      for (int v = 0; v < 4; ++v) acc[0][v] = _mm512_load_si512(sums + r * kColumns + 16 * v);
      tiles512::finish<1, 4>(args, acc, row + r, first);
    }
  }
}

constexpr int64_t kFewRows = 4;  // which need less time without tiles

// Few rows as the AVX512-VNNI row does them: panels of 16 columns are its panels, but for the tail.
REPQUANT_AVX512VNNI inline void few_rows(const GemmI8Args& args) {
  const int64_t depth = tile_depth(args.shape);
  for (int64_t first = 0; first < args.shape.n; first += 16) {
    const int8_t* panel = static_cast<const int8_t*>(args.weights) + first * depth;
    tiles512::tiles<tiles512::Bytes, 1>(args, panel, first);
  }
}

template <class Unit>
REPQUANT_AVX512VNNI inline void run(Unit& unit, const GemmI8Kernel& own, const GemmI8Args& args) {
  for_row_blocks(own, args, [&unit](const GemmI8Args& piece) REPQUANT_AVX512VNNI {
    if (piece.rows <= kFewRows) return few_rows(piece);
    auto* sums = reinterpret_cast<int32_t*>(piece.scratch + sums_bytes());
    auto* copy = reinterpret_cast<uint8_t*>(sums + kBlock * kBlock);
    const int64_t most = copied_rows(piece.shape);
    RowCursor cursor(piece);
    unit.configure();
    for (int64_t row = 0; row < piece.rows; row += most) {
      const int64_t rows = std::min(most, piece.rows - row), whole = rows / kBlock * kBlock;
      if (whole > 0)
        row_block(unit, piece, tile_rows(piece, cursor, whole, copy), row, whole, sums);
      if (whole < rows) {
        const TileRows last = tile_rows(piece, cursor, rows - whole, copy);
        if (rows - whole <= kTileRows)
          flat_rows(unit, piece, last, row + whole, rows - whole, sums);
        else row_block(unit, piece, last, row + whole, rows - whole, sums);
      }
    }
    unit.release();
  });
}

}  // namespace
}  // namespace repquant::runtime::amx
