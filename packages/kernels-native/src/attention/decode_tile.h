// A tile of tokens meets the query heads of one KV head: logits, weights, and the sum of the values.
// Keys and values are read where they lie, by up to 4 heads at a time. Where more heads share them and they are not
// f32, or where they do not fill whole vectors, they are widened into the cache first, once for all heads.
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

// logits [heads][kTileTokens]: dot products; `dim` fills whole vectors. Whole groups of 4 rows are computed; pointers behind the last repeat it.
template <int H, class T>
static void key_dots(const T* const* rows, int tokens, int64_t dim, const float* queries, int64_t pitch, const void* const* ahead, float* logits) {
  constexpr int R = stream_rows(H);
  for (int r = 0; r < tokens; r += 4) {
    f32v sum[H][4], square[4];
    for (int half = 0; half < 4; half += R) {
      f32v part[H][4];
      if (ahead) stream_sums<T, H, R, Pass::ahead>(rows + r + half, dim, queries, pitch, nullptr, part, square, ahead + r + half);
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
static inline void add_values(const T* const* rows, const void* const* ahead, int tokens, int64_t at, const float* weights, float* sums, int64_t pitch) {
  f32v s[H][W];
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
    for (int w = 0; w < W; w++) s[h][w] = load(sums + h * pitch + at + w * kLanes);
  for (int i = 0; i < tokens; i++) {
    if (ahead) __builtin_prefetch(static_cast<const char*>(ahead[i]) + at * int64_t(sizeof(T)), 0, kAheadHint);
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

// `dim` fills whole vectors. sums [heads][pitch] += weights [heads][kTileTokens] x values. As many sums in registers as fit beside W values.
template <int H, class T>
static void value_sums(const T* const* rows, int tokens, int64_t dim, const void* const* ahead, const float* weights, float* sums, int64_t pitch) {
  constexpr int kSums = kRegisters == 32 ? 16 : 8;
  constexpr int W = kSums / (H == 3 ? 4 : H);
  for (int run = 0; run < tokens; run += kValueRun) {
    const int n = tokens - run < kValueRun ? tokens - run : kValueRun;
    int64_t at = 0;
    for (; at + W * kLanes <= dim; at += W * kLanes) add_values<H, W>(rows + run, ahead ? ahead + run : nullptr, n, at, weights + run, sums, pitch);
    for (; at < dim; at += kLanes) add_values<H, 1>(rows + run, ahead ? ahead + run : nullptr, n, at, weights + run, sums, pitch);
  }
}

// Rows as floats with zeros behind them, one every `pitch` floats.
template <class T>
static void widen_rows(const T* const* rows, int tokens, int64_t dim, int64_t pitch, float* out, const float** pointers) {
  const int64_t whole = dim / kLanes * kLanes;
  for (int i = 0; i < tokens; i++) {
    float* const to = out + i * pitch;
    for (int64_t d = 0; d < whole; d += kLanes) store(to + d, load(rows[i] + d));
    if (whole < pitch) {
      T rest[2 * 16];
      memset(rest, 0, sizeof rest);
      memcpy(rest, rows[i] + whole, size_t(dim - whole) * sizeof(T));
      for (int64_t d = whole; d < pitch; d += kLanes) store(to + d, load(rest + (d - whole)));
    }
    pointers[i] = to;
  }
  for (int i = tokens; i % 4; i++) pointers[i] = pointers[tokens - 1];
}

}  // namespace HOTSET_ISA
}  // namespace hotset
