// Products of rows of expert weights with rows of numbers, in runs of 512: f32 sums of a run, added in the order of the
// runs, so that a row's bits do not depend on how many others it is computed with.
#pragma once
#include "../kernel.h"
#include "../simd/q8.h"

namespace hotset {
namespace HOTSET_ISA {

// Numbers are met 32 at a time: a block of q8_0, and whole vectors of every instruction set.
constexpr int kUnit = kQ8;
constexpr int kRunUnits = 16;
// Rows of weights of a task, and rows of numbers that share their widening.
constexpr int kTileRows = 32;
constexpr int kGroupRows = 64;
// Rows of numbers that meet rows of weights in registers: 6 x 2 sums are 12 of 16, 6 x 4 are 24 of 32.
constexpr int kMostQueries = 6;
constexpr int weight_rows(int queries) { return queries <= 2 || kRegisters == 32 ? 4 : 2; }

// 32 weights as they lie: bytes of a unit, its scale, and one vector of it as f32 (an i8 times an f16 is exact there).
template <class T>
struct ExpertUnit {
  static constexpr int64_t bytes = kUnit * sizeof(T);
  static inline float scale(const char*) { return 1; }
  static inline f32v get(const char* unit, int v, float) { return load(reinterpret_cast<const T*>(unit) + v * kLanes); }
};
template <>
struct ExpertUnit<q8> {
  static constexpr int64_t bytes = sizeof(q8);
  static inline float scale(const char* unit) { return to_float(reinterpret_cast<const q8*>(unit)->scale); }
  static inline f32v get(const char* unit, int v, float scale) { return mul(load(reinterpret_cast<const q8*>(unit)->values + v * kLanes), splat(scale)); }
};

// sums [Q][pitch] += the products of R rows of weights with Q rows of numbers over one run.
template <class T, int Q, int R>
static inline void run_products(const char* const* weights, const float* const* x, int64_t units, float* sums, int64_t pitch, int rows) {
  f32v s[Q * R];
#pragma GCC unroll 24
  for (int i = 0; i < Q * R; i++) s[i] = zero();
  for (int64_t u = 0; u < units; u++) {
    float scale[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) scale[r] = ExpertUnit<T>::scale(weights[r] + u * ExpertUnit<T>::bytes);
#pragma GCC unroll 2
    for (int v = 0; v < kUnit / kLanes; v++) {
      f32v w[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) w[r] = held(ExpertUnit<T>::get(weights[r] + u * ExpertUnit<T>::bytes, v, scale[r]));
#pragma GCC unroll 6
      for (int q = 0; q < Q; q++) {
        const f32v y = held(load(x[q] + u * kUnit + v * kLanes));
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) s[q * R + r] = madd(w[r], y, s[q * R + r]);
      }
    }
  }
  alignas(64) float out[Q * R + 3];
  for (int i = 0; i < Q * R; i += 4) reduce_add4(s[i], s[i + 1 < Q * R ? i + 1 : i], s[i + 2 < Q * R ? i + 2 : i], s[i + 3 < Q * R ? i + 3 : i], out + i);
  for (int q = 0; q < Q; q++)
    for (int r = 0; r < rows; r++) sums[q * pitch + r] += out[q * R + r];
}

// A tile of weights: rows [first, first + n) of one expert's matrix, `width` numbers each.
struct WeightTile {
  const char* rows;
  int64_t row_bytes;
  int n;
  int64_t width;
};

// sums [Q][kTileRows] over runs [from, to) of units; the last rows of weights may be fewer than R.
template <class T, int Q>
static void tile_products(const WeightTile& tile, const float* const* x, int64_t from, int64_t to, float* sums) {
  constexpr int R = weight_rows(Q);
  for (int row = 0; row < tile.n; row += R) {
    const int rows = tile.n - row < R ? tile.n - row : R;
    const char* weights[R];
    for (int64_t at = from; at < to; at += kRunUnits) {
      for (int r = 0; r < R; r++) weights[r] = tile.rows + (row + (r < rows ? r : 0)) * tile.row_bytes + at * ExpertUnit<T>::bytes;
      const float* numbers[Q];
      for (int q = 0; q < Q; q++) numbers[q] = x[q] + at * kUnit;
      run_products<T, Q, R>(weights, numbers, least(kRunUnits, to - at), sums + row, kTileRows, rows);
    }
  }
}

template <class T>
static void tile_products(const WeightTile& tile, const float* const* x, int queries, int64_t from, int64_t to, float* sums) {
  switch (queries) {
    case 1: return tile_products<T, 1>(tile, x, from, to, sums);
    case 2: return tile_products<T, 2>(tile, x, from, to, sums);
    case 3: return tile_products<T, 3>(tile, x, from, to, sums);
    case 4: return tile_products<T, 4>(tile, x, from, to, sums);
    case 5: return tile_products<T, 5>(tile, x, from, to, sums);
    default: return tile_products<T, 6>(tile, x, from, to, sums);
  }
}

template <class T>
static void each_queries(const WeightTile& tile, const float* const* x, int count, int64_t from, int64_t to, float* sums) {
  for (int q = 0; q < count; q += kMostQueries) tile_products<T>(tile, x + q, count - q < kMostQueries ? count - q : kMostQueries, from, to, sums + q * kTileRows);
}

// Weights of a tile over some units as f32, [n][units * kUnit].
template <class T>
static void widen_tile(const WeightTile& tile, int64_t from, int64_t units, float* out) {
  for (int row = 0; row < tile.n; row++)
    for (int64_t u = 0; u < units; u++) {
      const char* const unit = tile.rows + row * tile.row_bytes + (from + u) * ExpertUnit<T>::bytes;
      const float scale = ExpertUnit<T>::scale(unit);
      for (int v = 0; v < kUnit / kLanes; v++) store(out + (row * units + u) * kUnit + v * kLanes, ExpertUnit<T>::get(unit, v, scale));
    }
}

// The rest of rows that are no whole units, filled up with zeros, [n][kUnit].
template <class T>
static void widen_rest(const WeightTile& tile, int64_t from, float* out) {
  const int64_t rest = tile.width - from * kUnit;
  for (int row = 0; row < tile.n; row++) {
    alignas(64) T unit[kUnit];
    memset(unit, 0, sizeof unit);
    memcpy(unit, tile.rows + row * tile.row_bytes + from * ExpertUnit<T>::bytes, size_t(rest) * sizeof(T));
    for (int v = 0; v < kUnit / kLanes; v++) store(out + row * kUnit + v * kLanes, load(unit + v * kLanes));
  }
}
template <>
void widen_rest<q8>(const WeightTile&, int64_t, float*) {}

// sums [count][kTileRows] = products of a tile with `count` rows of numbers, each in whole units with zeros behind.
// `wide`: room for a tile of kRunUnits.
template <class T>
static void products(const WeightTile& tile, const float* const* x, int count, float* sums, float* wide) {
  constexpr bool kWhole = ExpertUnit<T>::bytes == sizeof(q8), kFloats = ExpertUnit<T>::bytes == 4 * kUnit;
  const int64_t units = kWhole ? (tile.width + kUnit - 1) / kUnit : tile.width / kUnit;
  memset(sums, 0, size_t(count) * kTileRows * sizeof(float));
  const auto widened = [&](int64_t n) { return WeightTile{reinterpret_cast<const char*>(wide), n * kUnit * 4, tile.n, n * kUnit}; };
  const float* shifted[kGroupRows];
  const auto from = [&](int64_t unit) {
    for (int q = 0; q < count; q++) shifted[q] = x[q] + unit * kUnit;
    return shifted;
  };
  if (count <= kMostQueries) {
    // Weights are met once: rows are read from end to end, as memory likes it.
    each_queries<T>(tile, x, count, 0, units, sums);
  } else {
    for (int64_t at = 0; at < units; at += kRunUnits) {
      const int64_t n = least(kRunUnits, units - at);
      if (kFloats) {
        each_queries<T>(tile, x, count, at, at + n, sums);
        continue;
      }
      widen_tile<T>(tile, at, n, wide);
      each_queries<float>(widened(n), from(at), count, 0, n, sums);
    }
  }
  if (kWhole || tile.width == units * kUnit) return;
  widen_rest<T>(tile, units, wide);
  each_queries<float>(widened(1), from(units), count, 0, 1, sums);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
