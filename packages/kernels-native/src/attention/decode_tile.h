// A tile of tokens meets the query heads of one KV head: logits, weights, and the sum of the values.
// Keys and values are read where they lie, once per group of up to 4 heads; with more heads to a group, rows that are
// not f32 are widened into the cache once for all of them.
#pragma once
#include "../gen/params.h"
#include "../simd/exp.h"
#include "../simd/row_dots.h"

namespace hotset {
namespace HOTSET_ISA {

// 64 rows of 128 floats are 32 KiB: keys, then values, stay in the L1 cache for the second group of heads.
constexpr int kTileTokens = 64;
constexpr int kHeadBlock = 4;
// Values are added in runs of so many tokens, with sums in registers: rows are read in order, as memory likes it.
constexpr int kValueRun = 8;

struct Tile {
  int tokens;
  const void* keys[kTileTokens];
  const void* values[kTileTokens];
  alignas(64) float key_scale[kTileTokens];
  alignas(64) float value_scale[kTileTokens];
};

// The running state of one query head over tokens: weights are relative to the largest logit.
struct HeadState {
  float largest;
  float sum;
};

// logits [heads][kTileTokens]: dot products. Whole groups of 4 rows are computed; pointers behind the last repeat it.
template <int H, class T>
static void key_dots(const T* const* rows, int tokens, int64_t dim, const float* queries, int64_t pitch, bool ahead, float* logits) {
  constexpr int R = stream_rows(H);
  for (int r = 0; r < tokens; r += 4) {
    f32v sum[H][4], square[4];
    for (int half = 0; half < 4; half += R) {
      f32v part[H][4];
      if (ahead) stream_sums<T, H, R, Pass::ahead>(rows + r + half, dim, queries, pitch, nullptr, part, square);
      else stream_sums<T, H, R, Pass::again>(rows + r + half, dim, queries, pitch, nullptr, part, square);
      for (int h = 0; h < H; h++)
        for (int j = 0; j < R; j++) sum[h][half + j] = part[h][j];
    }
    for (int h = 0; h < H; h++) reduce_add4(sum[h][0], sum[h][1], sum[h][2], sum[h][3], logits + h * kTileTokens + r);
  }
}

// Dot products to weights exp(logit - largest), times the value scales. Returns what earlier sums are multiplied by.
static inline float weigh(const Tile& tile, bool scaled, float scale, float cap, float* logits, HeadState& state) {
  f32v largest = splat(state.largest);
  for (int i = 0; i < tile.tokens; i += kLanes) {
    f32v x = mul(load(logits + i), splat(scale));
    if (scaled) x = mul(x, load(tile.key_scale + i));
    if (cap > 0) x = mul(splat(cap), tanh(div(x, splat(cap))));
    store(logits + i, x);
    if (i + kLanes <= tile.tokens) largest = larger(x, largest);
  }
  // The last vector may hold what is no token.
  const int whole = tile.tokens / kLanes * kLanes;
  for (int i = tile.tokens; i < whole + kLanes && i < kTileTokens; i++) logits[i] = -INFINITY;
  if (whole < tile.tokens) largest = larger(load(logits + whole), largest);
  alignas(64) float lanes[kLanes];
  store(lanes, largest);
  float most = lanes[0];
  for (int i = 1; i < kLanes; i++) most = lanes[i] > most ? lanes[i] : most;
  // No logit above -Inf: weights are 0, or NaN where a logit is.
  const f32v base = splat(most == -INFINITY ? 0 : most);
  f32v sum = zero();
  for (int i = 0; i < tile.tokens; i += kLanes) {
    f32v weight = exp(sub(load(logits + i), base));
    sum = add(sum, weight);
    if (scaled) weight = mul(weight, load(tile.value_scale + i));
    store(logits + i, weight);
  }
  const float before = most == state.largest ? 1 : state.largest == -INFINITY ? 0 : exp(state.largest - most);
  state.sum = (state.sum == 0 ? 0 : state.sum * before) + reduce_add(sum);
  state.largest = most;
  return before;
}

// W vectors of values from `at` on, of one run of tokens, for H heads.
template <int H, int W, class T>
static inline void add_values(const T* const* rows, int tokens, int64_t at, const float* weights, float* sums, int64_t pitch) {
  f32v s[H][W];
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
    for (int w = 0; w < W; w++) s[h][w] = load(sums + h * pitch + at + w * kLanes);
  for (int i = 0; i < tokens; i++) {
    f32v v[W];
#pragma GCC unroll 8
    for (int w = 0; w < W; w++) v[w] = load(rows[i] + at + w * kLanes);
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      const f32v weight = splat(weights[h * kTileTokens + i]);
#pragma GCC unroll 8
      for (int w = 0; w < W; w++) s[h][w] = madd(weight, v[w], s[h][w]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
    for (int w = 0; w < W; w++) store(sums + h * pitch + at + w * kLanes, s[h][w]);
}

// sums [heads][pitch] += weights [heads][kTileTokens] x values. As many sums in registers as fit beside W values.
template <int H, class T>
static void value_sums(const T* const* rows, int tokens, int64_t dim, bool ahead, const float* weights, float* sums, int64_t pitch) {
  constexpr int kSums = kRegisters == 32 ? 16 : 8;
  constexpr int W = kSums / (H == 3 ? 4 : H);
  const int64_t whole = dim / kLanes * kLanes;
  for (int run = 0; run < tokens; run += kValueRun) {
    const int n = tokens - run < kValueRun ? tokens - run : kValueRun;
    if (ahead)
      for (int i = 0; i < n; i++)
        for (int64_t byte = 0; byte < dim * int64_t(sizeof(T)); byte += 64) __builtin_prefetch(reinterpret_cast<const char*>(rows[run + i]) + byte + kPrefetchBytes);
    int64_t at = 0;
    for (; at + W * kLanes <= whole; at += W * kLanes) add_values<H, W>(rows + run, n, at, weights + run, sums, pitch);
    for (; at < whole; at += kLanes) add_values<H, 1>(rows + run, n, at, weights + run, sums, pitch);
    if (whole == dim) continue;
    // The rest of each row, behind which the sums have room.
    T rest[kValueRun][kLanes];
    const T* pointers[kValueRun];
    memset(rest, 0, sizeof rest);
    for (int i = 0; i < n; i++) {
      memcpy(rest[i], rows[run + i] + whole, size_t(dim - whole) * sizeof(T));
      pointers[i] = rest[i] - whole;
    }
    add_values<H, 1>(pointers, n, whole, weights + run, sums, pitch);
  }
}

// Rows as floats, one behind the other.
template <class T>
static void widen_rows(const T* const* rows, int tokens, int64_t dim, float* out, const float** pointers) {
  const int64_t whole = dim / kLanes * kLanes;
  for (int i = 0; i < tokens; i++) {
    float* const to = out + i * dim;
    for (int64_t d = 0; d < whole; d += kLanes) store(to + d, load(rows[i] + d));
    if (whole < dim) {
      T rest[kLanes];
      alignas(64) float lanes[kLanes];
      memset(rest, 0, sizeof rest);
      memcpy(rest, rows[i] + whole, size_t(dim - whole) * sizeof(T));
      store(lanes, load(rest));
      memcpy(to + whole, lanes, size_t(dim - whole) * sizeof(float));
    }
    pointers[i] = to;
  }
  for (int i = tokens; i < kTileTokens && i % 4; i++) pointers[i] = pointers[tokens - 1];
}

}  // namespace HOTSET_ISA
}  // namespace hotset
