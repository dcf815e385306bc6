// Weights as panels: kPanelRows rows, widened and transposed to [columns][kPanelRows], meet kTokenTile vectors packed
// as [columns][kTokenTile], with all their sums in registers.
#pragma once
#include "../simd/q8.h"

namespace hotset {
namespace HOTSET_ISA {

constexpr int kPanelRows = kPanelVectors * kLanes;
constexpr int kTokenTile = kQueryTile;
// 256 columns of a panel are 16 KiB with 16 rows: half of a first-level cache, beside 6 KiB of vectors.
constexpr int kPanelColumns = 256;

// Columns `at` to at + kLanes of one row, as floats; fewer where the row ends.
template <class T>
static inline f32v widen_columns(const T* row, int64_t at, int64_t end) {
  if (at + kLanes <= end) return load(row + at);
  T rest[kLanes] = {};
  memcpy(rest, row + at, size_t(end - at) * sizeof(T));
  return load(rest);
}
template <>
inline f32v widen_columns<q8>(const q8* row, int64_t at, int64_t) {
  const q8& block = row[at / kQ8];
  return mul(splat(to_float(block.scale)), load(block.values + at % kQ8));
}

// Columns first to end of `rows` rows of weights, `pitch` elements (q8: blocks) apart; rows that are not there are 0.
template <class T>
static void pack_weights(const T* weights, int64_t pitch, int rows, int64_t first, int64_t end, float* panel) {
  for (int64_t i = first; i < end; i += kLanes) {
    for (int g = 0; g < kPanelRows; g += kLanes) {
      f32v r[kLanes];
      for (int j = 0; j < kLanes; j++) r[j] = g + j < rows ? widen_columns<T>(weights + (g + j) * pitch, i, end) : zero();
      transpose(r);
      float* const to = panel + (i - first) * kPanelRows + g;
      for (int j = 0; j < kLanes && i + j < end; j++) store(to + j * kPanelRows, r[j]);
    }
  }
}

// sums [Q][kPanelRows], `pitch` floats apart, from 0 or from what they are.
template <int Q>
static void panel_sums(const float* panel, const float* x, int64_t columns, bool go_on, float* sums, int64_t pitch) {
  f32v s[Q][kPanelVectors];
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) s[q][v] = go_on ? load(sums + q * pitch + v * kLanes) : zero();
  for (int64_t i = 0; i < columns; i++) {
    f32v w[kPanelVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) w[v] = load(panel + i * kPanelRows + v * kLanes);
#pragma GCC unroll 16
    for (int q = 0; q < Q; q++) {
      const f32v y = splat(x[i * kTokenTile + q]);
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; v++) s[q][v] = madd(y, w[v], s[q][v]);
    }
  }
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) store(sums + q * pitch + v * kLanes, s[q][v]);
}

using PanelSums = void (*)(const float*, const float*, int64_t, bool, float*, int64_t);

static inline PanelSums panel_sums_for(int tokens) {
  static constexpr PanelSums kinds[] = {
      panel_sums<1>, panel_sums<2>, panel_sums<3>, panel_sums<4>, panel_sums<5>, panel_sums<6>,
#if defined(HOTSET_ISA_AVX512)
      panel_sums<7>, panel_sums<8>, panel_sums<9>, panel_sums<10>, panel_sums<11>, panel_sums<12>,
#endif
  };
  static_assert(sizeof(kinds) / sizeof(kinds[0]) == kTokenTile);
  return kinds[tokens - 1];
}

}  // namespace HOTSET_ISA
}  // namespace hotset
