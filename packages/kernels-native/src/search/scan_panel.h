// Many queries: kBlockRows rows are packed as a panel `[dim][kBlockRows]` of floats, and each tile of kQueryTile
// queries runs over it with all its sums in registers. Bound by multiply-add.
#pragma once
#include "scan_rows.h"

namespace hotset {
namespace HOTSET_ISA {

// Transposes kLanes columns of kLanes rows into the panel; the last columns may be fewer.
static inline void pack_columns(f32v (&r)[kLanes], int columns, float* out, f32v& square) {
  transpose(r);
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; j++) {
    if (j >= columns) break;
    store(out + j * kBlockRows, r[j]);
    square = madd(r[j], r[j], square);
  }
}

// Packs and widens the rows, multiplying i8 rows by their scale; also sums their squares.
template <class T>
static void pack_panel(const search_scan_params& p, RowBlock& block, float* panel) {
  constexpr bool kScaled = sizeof(T) == 1;
  const T* rows[kBlockRows];
  row_pointers(p, block, rows);
  for (int g = 0; g < kBlockRows; g += kLanes) {
    f32v square = zero(), scale[kScaled ? kLanes : 1];
    if (kScaled)
      for (int j = 0; j < kLanes; j++) scale[kScaled ? j : 0] = splat(p.row_scale[block.rows[g + j]]);
    int64_t i = 0;
    for (; i + kLanes <= p.dim; i += kLanes) {
      f32v r[kLanes];
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; j++) r[j] = kScaled ? mul(load(rows[g + j] + i), scale[kScaled ? j : 0]) : load(rows[g + j] + i);
      pack_columns(r, kLanes, panel + i * kBlockRows + g, square);
    }
    if (i < p.dim) {
      f32v r[kLanes];
      for (int j = 0; j < kLanes; j++) {
        T rest[kLanes] = {};
        memcpy(rest, rows[g + j] + i, size_t(p.dim - i) * sizeof(T));
        r[j] = kScaled ? mul(load(rest), scale[kScaled ? j : 0]) : load(rest);
      }
      pack_columns(r, int(p.dim - i), panel + i * kBlockRows + g, square);
    }
    store(block.squares + g, square);
  }
}

// dots [Q][kBlockRows] of Q queries, packed `[dim][kQueryTile]`. Asks for one line of the rows to come at each step,
// `ahead_step` bytes on: spread like this they cost nothing; in a burst they stall the multiply-adds.
template <int Q>
static void panel_tile(const float* panel, const float* queries, int64_t dim, float* dots, const char* ahead, int64_t ahead_step) {
  f32v sum[Q][kPanelVectors];
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) sum[q][v] = zero();
  for (int64_t i = 0; i < dim; i++) {
    __builtin_prefetch(ahead + i * ahead_step, 0, 2);
    f32v x[kPanelVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) x[v] = load(panel + i * kBlockRows + v * kLanes);
#pragma GCC unroll 16
    for (int q = 0; q < Q; q++) {
      const f32v y = splat(queries[i * kQueryTile + q]);
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; v++) sum[q][v] = madd(y, x[v], sum[q][v]);
    }
  }
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) store(dots + q * kBlockRows + v * kLanes, sum[q][v]);
}

using PanelTile = void (*)(const float*, const float*, int64_t, float*, const char*, int64_t);

// The tile for a number of queries, 1 to kQueryTile.
static inline PanelTile panel_tile_for(int queries) {
  static constexpr PanelTile tiles[] = {
      panel_tile<1>, panel_tile<2>, panel_tile<3>, panel_tile<4>, panel_tile<5>, panel_tile<6>,
#if defined(HOTSET_ISA_AVX512)
      panel_tile<7>, panel_tile<8>, panel_tile<9>, panel_tile<10>, panel_tile<11>, panel_tile<12>,
#endif
  };
  static_assert(sizeof(tiles) / sizeof(tiles[0]) == kQueryTile);
  return tiles[queries - 1];
}

}  // namespace HOTSET_ISA
}  // namespace hotset
