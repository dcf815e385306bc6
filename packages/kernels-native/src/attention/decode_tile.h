// A tile of tokens meets the query heads of one KV head: logits, weights, and the sum of the values.
// Keys and values are read where they lie, by up to 4 heads at a time. Where more heads share them and they are not
// f32, or where they do not fill whole vectors, they are widened into the cache first, once for all heads.
#pragma once
#include "../gen/params.h"
#include "../simd/exp.h"
#include "../simd/row_dots.h"

namespace hotset {
namespace HOTSET_ISA {

// Long, because its rows are met in an order that memory likes (place_rows), and short enough to leave work for several
// cores; the keys and values of a tile need not stay in the cache.
constexpr int kTileTokens = 256;
constexpr int kHeadBlock = 4;
// Values are added in runs of so many tokens, with sums in registers: rows are read in order, as memory likes it.
constexpr int kValueRun = 16;
// Rows are asked for so many before they are met: 6 from each of 4 places. 8 would be a page's size ahead in rows of 512
// bytes, where what is asked for drives out what is about to be used.
constexpr int kRowsAhead = 24;
// The 4 places start so many bytes apart within a page: at equal distances, all would lie in the same sets of the cache.
constexpr int kSkewBytes = 1024;

// A number of heads as a type, so that each gets loops of its own.
template <int H>
struct Heads {
  static constexpr int value = H;
};
template <class Body>
static inline void with_heads(int64_t heads, const Body& body) {
  switch (heads) {
    case 1: return body(Heads<1>());
    case 2: return body(Heads<2>());
    case 3: return body(Heads<3>());
    default: return body(Heads<4>());
  }
}

struct Tile {
  int tokens;
  int64_t slots[kTileTokens];  // (page * kvHeads + kvHead) * pageSize + offset, in the order of the tokens
  int32_t places[kTileTokens];  // of each token in its sequence; where there are slopes or masks only
  // In the order they are met; then those of the next tile.
  const void* keys[kTileTokens + kRowsAhead + 4];
  const void* values[kTileTokens + kRowsAhead + 4];
  int32_t met_places[kTileTokens];
  alignas(64) float key_scale[kTileTokens];
  alignas(64) float value_scale[kTileTokens];
};

// Four rows meet the queries side by side. Each comes from a quarter of its own: prefetchers follow streams that lie
// apart (7.9 against 14.4 GB/s in one piece, 6.0 against 9.5 in pages of 16; 19.0 and 14.4 with rows asked for ahead;
// one thread of a Zen 3, 4 heads). A quarter is met from its own start on, and round.
struct MetOrder {
  int quarter, skew;

  MetOrder(const attention_decode_params& p, int tokens) : quarter(tokens / 4) {
    const int64_t bytes = p.key_pages_dtype == dtype_f32 ? 4 : p.key_pages_dtype == dtype_i8 ? 1 : 2;
    skew = int(least(kSkewBytes / most(1, p.head_dim * bytes), quarter / 4));
  }
  // Which of the tile's tokens is met as the i-th.
  int token(int i) const {
    if (i >= 4 * quarter) return i;
    const int in = i / 4 + i % 4 * skew;
    return i % 4 * quarter + (in < quarter ? in : in - quarter);
  }
  // When a token is met. The tokens behind it, up to `turn`, each come 4 later (1 later behind the quarters).
  int place(int token) const {
    if (token >= 4 * quarter) return token;
    const int in = token % quarter - token / quarter * skew;
    return (in < 0 ? in + quarter : in) * 4 + token / quarter;
  }
  int turn(int token, int tokens) const {
    if (token >= 4 * quarter) return tokens;
    const int start = token / quarter * quarter, met_first = start + token / quarter * skew;
    return token < met_first ? met_first : start + quarter;
  }
};

inline bool biased(const attention_decode_params& p) { return p.slopes || p.mask; }

template <class T>
static inline void place_rows(const attention_decode_params& p, Tile& tile) {
  const MetOrder order(p, tile.tokens);
  for (int i = 0; i < tile.tokens; i++) {
    const int token = order.token(i);
    const int64_t slot = tile.slots[token];
    tile.keys[i] = static_cast<const T*>(p.key_pages) + slot * p.head_dim;
    tile.values[i] = static_cast<const T*>(p.value_pages) + slot * p.value_dim;
    if (biased(p)) tile.met_places[i] = tile.places[token];
    if (sizeof(T) != 1) continue;
    tile.key_scale[i] = p.key_scale[slot];
    tile.value_scale[i] = p.value_scale[slot];
  }
}

// Whole groups of rows are computed, and rows asked for, beyond the last one.
static inline void place_rows_behind(Tile& tile, const Tile& next) {
  for (int i = 0; i < kRowsAhead + 4; i++) {
    tile.keys[tile.tokens + i] = i < next.tokens ? next.keys[i] : tile.keys[tile.tokens - 1];
    tile.values[tile.tokens + i] = i < next.tokens ? next.values[i] : tile.values[tile.tokens - 1];
  }
}

// The running state of one query head over tokens: weights are relative to the largest logit.
struct HeadState {
  float largest;
  float sum;
};

// logits [heads][kTileTokens]: dot products; `dim` fills whole vectors. Whole groups of 4 rows are computed.
template <int H, class T>
static void key_dots(const T* const* rows, int tokens, int64_t dim, const float* queries, int64_t pitch, bool ahead, float* logits) {
  constexpr int R = stream_rows(H);
  for (int r = 0; r < tokens; r += 4) {
    f32v sum[H][4], square[4];
    for (int half = 0; half < 4; half += R) {
      f32v part[H][4];
      if (ahead) stream_sums<T, H, R, Pass::ahead, false>(rows + r + half, dim, queries, pitch, nullptr, part, square, reinterpret_cast<const void* const*>(rows + r + half + kRowsAhead));
      else stream_sums<T, H, R, Pass::again, false>(rows + r + half, dim, queries, pitch, nullptr, part, square);
      for (int h = 0; h < H; h++)
        for (int j = 0; j < R; j++) sum[h][half + j] = part[h][j];
    }
    for (int h = 0; h < H; h++) reduce_add4(sum[h][0], sum[h][1], sum[h][2], sum[h][3], logits + h * kTileTokens + r);
  }
}

// Weights times the value scales: `weigh` does so, but where the weights themselves are wanted first.
static inline void scale_weights(const Tile& tile, float* weights) {
  for (int i = 0; i < tile.tokens; i += kLanes) store(weights + i, mul(load(weights + i), load(tile.value_scale + i)));
}

// What a head's logits are given by where their tokens stand, in the order they are met: less for the distance to token
// `last`, and the mask. What heads share is found for the first of them. Zeros behind, as far as a vector goes.
struct Bias {
  alignas(64) float distances[kTileTokens];
  alignas(64) float masked[kTileTokens];
  alignas(64) float both[kTileTokens];

  const float* of(const attention_decode_params& p, const Tile& tile, int64_t b, int64_t head, int64_t last, bool first) {
    if (p.mask && (first || p.mask_heads > 1)) find_mask(p, tile, p.mask_heads == 1 ? b : b * p.mask_heads + head);
    if (!p.slopes) return masked;
    for (int i = 0; first && i < (tile.tokens + kLanes - 1) / kLanes * kLanes; i++) distances[i] = i < tile.tokens ? float(last - tile.met_places[i]) : 0;
    const f32v slope = splat(-p.slopes[head]);
    for (int i = 0; i < tile.tokens; i += kLanes) {
      const f32v far = mul(slope, load(distances + i));
      store(both + i, p.mask ? add(far, load(masked + i)) : far);
    }
    return both;
  }

 private:
  void find_mask(const attention_decode_params& p, const Tile& tile, int64_t row) {
    const int64_t tokens = p.max_pages * p.page_size;
    if (p.mask_dtype == dtype_f32) {
      const float* const added = static_cast<const float*>(p.mask) + row * tokens;
      for (int i = 0; i < tile.tokens; i++) masked[i] = added[tile.met_places[i]];
    } else {
      const uint32_t* const seen = static_cast<const uint32_t*>(p.mask) + row * ((tokens + 31) / 32);
      for (int i = 0; i < tile.tokens; i++) masked[i] = seen[tile.met_places[i] >> 5] >> (tile.met_places[i] & 31) & 1 ? 0 : -INFINITY;
    }
    for (int i = tile.tokens; i % kLanes; i++) masked[i] = 0;
  }
};

// Dot products to weights exp(logit - largest), times the value scales unless `bare`; `bias`, if any, joins the logits. Returns what earlier sums are multiplied by.
static inline float weigh(const Tile& tile, bool scaled, bool bare, float scale, float cap, const float* bias, float* logits, HeadState& state) {
  f32v largest = splat(state.largest);
  for (int i = 0; i < tile.tokens; i += kLanes) {
    f32v x = mul(load(logits + i), splat(scale));
    if (scaled) x = mul(x, load(tile.key_scale + i));
    if (cap > 0) x = mul(splat(cap), tanh(div(x, splat(cap))));
    if (bias) x = add(x, load(bias + i));
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
    if (scaled && !bare) weight = mul(weight, load(tile.value_scale + i));
    store(logits + i, weight);
  }
  const float before = most == state.largest ? 1 : state.largest == -INFINITY ? 0 : exp(state.largest - most);
  state.sum = (state.sum == 0 ? 0 : state.sum * before) + reduce_add(sum);
  state.largest = most;
  return before;
}

// W vectors of values from `at` on, of one run of tokens, for H heads.
template <int H, int W, class T>
static inline void add_values(const T* const* rows, bool ahead, int tokens, int64_t at, const float* weights, float* sums, int64_t pitch) {
  f32v s[H][W];
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
    for (int w = 0; w < W; w++) s[h][w] = load(sums + h * pitch + at + w * kLanes);
  for (int i = 0; i < tokens; i++) {
    if (ahead) __builtin_prefetch(rows[i + kRowsAhead] + at);
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
static void value_sums(const T* const* rows, int tokens, int64_t dim, bool ahead, const float* weights, float* sums, int64_t pitch) {
  constexpr int kSums = kRegisters == 32 ? 16 : 8;
  constexpr int W = kSums / (H == 3 ? 4 : H);
  for (int run = 0; run < tokens; run += kValueRun) {
    const int n = tokens - run < kValueRun ? tokens - run : kValueRun;
    int64_t at = 0;
    for (; at + W * kLanes <= dim; at += W * kLanes) add_values<H, W>(rows + run, ahead && at * int64_t(sizeof(T)) % 64 == 0, n, at, weights + run, sums, pitch);
    for (; at < dim; at += kLanes) add_values<H, 1>(rows + run, ahead && at * int64_t(sizeof(T)) % 64 == 0, n, at, weights + run, sums, pitch);
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
