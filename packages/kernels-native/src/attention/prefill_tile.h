// Rows (query token x head of one KV head) meet a tile of kKeys keys: logits, weights, sums of the values. Keys are
// widened and transposed to [headDim][kKeys], values widened to [kKeys][pitch], once for all rows.
#pragma once
#include "../gen/params.h"
#include "../simd/exp.h"

namespace hotset {
namespace HOTSET_ISA {

// With heads of 128, 32 KiB of keys and as much of values: they stay in the second-level cache for all rows.
constexpr int kKeys = 64;
constexpr int kRowTile = kQueryTile;
constexpr int kKeyBlock = kPanelVectors * kLanes;
static_assert(kKeys % kKeyBlock == 0);

// The keys of a tile: where they lie, -1 for one that is not there; and which part of the tile is.
struct KeyTile {
  int first, end;
  bool whole;  // none is missing between them
  int64_t slots[kKeys];
};

// What a row sees of a tile.
struct Seen {
  int first, end;
};

// Up to kLanes elements from `at` on, 0 behind the end.
template <class T>
static inline f32v widen_part(const T* row, int64_t at, int64_t dim) {
  if (at + kLanes <= dim) return load(row + at);
  T rest[kLanes] = {};
  memcpy(rest, row + at, size_t(dim - at) * sizeof(T));
  return load(rest);
}

// [dim][kKeys], for the keys of the tile; those that are missing are 0.
template <class T>
static void pack_keys(const T* pages, const float* scales, int64_t dim, const KeyTile& tile, float* panel) {
  for (int g = tile.first / kLanes * kLanes; g < tile.end; g += kLanes) {
    for (int64_t i = 0; i < dim; i += kLanes) {
      f32v r[kLanes];
      for (int j = 0; j < kLanes; j++) {
        const int64_t slot = tile.slots[g + j];
        r[j] = slot < 0 ? zero() : widen_part(pages + slot * dim, i, dim);
        if (sizeof(T) == 1 && slot >= 0) r[j] = mul(r[j], splat(scales[slot]));
      }
      transpose(r);
      for (int j = 0; j < kLanes && i + j < dim; j++) store(panel + (i + j) * kKeys + g, r[j]);
    }
  }
}

// [kKeys][pitch].
template <class T>
static void pack_values(const T* pages, const float* scales, int64_t dim, int64_t pitch, const KeyTile& tile, float* values) {
  for (int k = tile.first; k < tile.end; k++) {
    const int64_t slot = tile.slots[k];
    for (int64_t i = 0; i < pitch; i += kLanes) {
      f32v v = slot < 0 ? zero() : widen_part(pages + slot * dim, i, dim);
      if (sizeof(T) == 1 && slot >= 0) v = mul(v, splat(scales[slot]));
      store(values + k * pitch + i, v);
    }
  }
}

// logits [Q][kKeys], of kKeyBlock keys, of rows packed as [dim][kRowTile].
template <int Q>
static void key_products(const float* panel, const float* rows, int64_t dim, float* logits) {
  f32v s[Q][kPanelVectors];
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) s[q][v] = zero();
  for (int64_t i = 0; i < dim; i++) {
    f32v k[kPanelVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) k[v] = load(panel + i * kKeys + v * kLanes);
#pragma GCC unroll 16
    for (int q = 0; q < Q; q++) {
      const f32v y = splat(rows[i * kRowTile + q]);
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; v++) s[q][v] = madd(y, k[v], s[q][v]);
    }
  }
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) store(logits + q * kKeys + v * kLanes, s[q][v]);
}

// sums [Q][pitch] += weights [Q][kKeys] x values, of keys first to end, W vectors from `at` on.
template <int Q, int W>
static inline void add_products(const float* weights, const float* values, int64_t pitch, int first, int end, int64_t at, float* sums) {
  f32v s[Q][W];
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int w = 0; w < W; w++) s[q][w] = load(sums + q * pitch + at + w * kLanes);
  for (int k = first; k < end; k++) {
    f32v v[W];
#pragma GCC unroll 4
    for (int w = 0; w < W; w++) v[w] = load(values + k * pitch + at + w * kLanes);
#pragma GCC unroll 16
    for (int q = 0; q < Q; q++) {
      const f32v y = splat(weights[q * kKeys + k]);
#pragma GCC unroll 4
      for (int w = 0; w < W; w++) s[q][w] = madd(y, v[w], s[q][w]);
    }
  }
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int w = 0; w < W; w++) store(sums + q * pitch + at + w * kLanes, s[q][w]);
}

template <int Q>
static void value_products(const float* weights, const float* values, int64_t pitch, int first, int end, float* sums) {
  int64_t at = 0;
  for (; at + kPanelVectors * kLanes <= pitch; at += kPanelVectors * kLanes) add_products<Q, kPanelVectors>(weights, values, pitch, first, end, at, sums);
  for (; at < pitch; at += kLanes) add_products<Q, 1>(weights, values, pitch, first, end, at, sums);
}

// Calls with a number of rows, 1 to kRowTile, as a type.
template <int Q>
struct Rows {
  static constexpr int value = Q;
};
template <class Body>
static inline void with_rows(int rows, const Body& body) {
  switch (rows) {
    case 1: return body(Rows<1>());
    case 2: return body(Rows<2>());
    case 3: return body(Rows<3>());
    case 4: return body(Rows<4>());
    case 5: return body(Rows<5>());
#if defined(HOTSET_ISA_AVX512)
    case 6: return body(Rows<6>());
    case 7: return body(Rows<7>());
    case 8: return body(Rows<8>());
    case 9: return body(Rows<9>());
    case 10: return body(Rows<10>());
    case 11: return body(Rows<11>());
#endif
    default: return body(Rows<kRowTile>());
  }
}

// The running state of a row: weights are relative to the largest logit.
struct RowState {
  float largest, sum;
};

// Dot products to weights; what the row does not see gets weight 0. Its sums are made relative to the new largest.
static inline void weigh_row(const KeyTile& tile, Seen seen, float scale, float cap, float* logits, RowState& state, float* sums, int64_t pitch) {
  for (int i = 0; i < kKeys; i += kLanes) {
    f32v x = mul(load(logits + i), splat(scale));
    if (cap > 0) x = mul(splat(cap), tanh(div(x, splat(cap))));
    store(logits + i, x);
  }
  for (int i = 0; i < seen.first; i++) logits[i] = -INFINITY;
  for (int i = seen.end; i < kKeys; i++) logits[i] = -INFINITY;
  if (!tile.whole)
    for (int i = seen.first; i < seen.end; i++)
      if (tile.slots[i] < 0) logits[i] = -INFINITY;
  f32v largest = splat(state.largest);
  for (int i = 0; i < kKeys; i += kLanes) largest = larger(load(logits + i), largest);
  alignas(64) float lanes[kLanes];
  store(lanes, largest);
  float most = lanes[0];
  for (int i = 1; i < kLanes; i++) most = lanes[i] > most ? lanes[i] : most;
  // No logit above -Inf: weights are 0, or NaN where a logit is.
  const f32v base = splat(most == -INFINITY ? 0 : most);
  f32v sum = zero();
  for (int i = 0; i < kKeys; i += kLanes) {
    const f32v weight = exp(sub(load(logits + i), base));
    sum = add(sum, weight);
    store(logits + i, weight);
  }
  const float before = most == state.largest ? 1 : state.largest == -INFINITY ? 0 : exp(state.largest - most);
  state.sum = (state.sum == 0 ? 0 : state.sum * before) + reduce_add(sum);
  state.largest = most;
  if (before == 1) return;
  for (int64_t i = 0; i < pitch; i += kLanes) store(sums + i, mul(load(sums + i), splat(before)));
}

}  // namespace HOTSET_ISA
}  // namespace hotset
