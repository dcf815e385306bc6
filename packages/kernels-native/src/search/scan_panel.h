// Many queries: kBlockRows rows are packed as a panel `[dim][kBlockRows]` of floats, and each tile of kQueryTile
// queries runs over it with all its sums in registers. Bound by multiply-add.
#pragma once
#include "scan_rows.h"

namespace hotset {
namespace HOTSET_ISA {

// Packs and widens the rows, multiplying i8 rows by their scale; also sums their squares.
template <class T>
static void pack_panel(const search_scan_params& p, RowBlock& block, float* panel) {
  const T* rows[kBlockRows];
  row_pointers(p, block, rows);
  for (int g = 0; g < kBlockRows; g += kLanes) {
    f32v square = zero();
    f32v scale[kLanes];
    for (int j = 0; j < kLanes; j++) scale[j] = splat(p.row_scale ? p.row_scale[block.rows[g + j]] : 1.0f);
    for (int64_t i = 0; i < p.dim; i += kLanes) {
      const int64_t left = p.dim - i;
      f32v r[kLanes];
      if (left >= kLanes) {
        for (int j = 0; j < kLanes; j++) r[j] = load(rows[g + j] + i);
      } else {
        for (int j = 0; j < kLanes; j++) {
          T rest[kLanes] = {};
          memcpy(rest, rows[g + j] + i, size_t(left) * sizeof(T));
          r[j] = load(rest);
        }
      }
      if (p.row_scale)
        for (int j = 0; j < kLanes; j++) r[j] = mul(r[j], scale[j]);
      transpose(r);
      const int columns = left < kLanes ? int(left) : kLanes;
      for (int j = 0; j < columns; j++) {
        store(panel + (i + j) * kBlockRows + g, r[j]);
        square = madd(r[j], r[j], square);
      }
    }
    store(block.squares + g, square);
  }
}

// dots [Q][kBlockRows] of Q queries, packed `[dim][kQueryTile]`.
template <int Q>
static void panel_tile(const float* panel, const float* queries, int64_t dim, float* dots) {
  f32v sum[Q][kPanelVectors];
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) sum[q][v] = zero();
  for (int64_t i = 0; i < dim; i++) {
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

using PanelTile = void (*)(const float*, const float*, int64_t, float*);

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
