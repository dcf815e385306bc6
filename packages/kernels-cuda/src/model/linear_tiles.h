// Many tokens of model/linear: a block of 256 threads takes 128 rows of weights and 64 tokens, 32 columns at a time, and a
// warp 32 x 32 of the results, on tensor cores.
//
// The vectors are f32 and stay so: each component is two tf32 parts, which lose 2^-23 of it. f16, bf16 and q8_0's integers
// are tf32 as they are, f32 weights are two parts too (low times low, 2^-22, is left out). 32 columns are summed from 0
// by the tensor cores, which cut each addend at 2^-23 of the largest (panel_unit in search has the source): 8 or 12 tiles
// of 9 addends, 216 roundings of f32 at most, and 8 of the parts. Then they join an f32 sum (of q8_0 by their block's scale).
// So from 256 columns on no more is lost than a plain f32 sum of as many products may lose, which is what the op allows.
#pragma once
#include "../tensor_core.h"
#include "linear_weights.h"

namespace hotset {

constexpr int kTileThreads = 256;
constexpr int kTileRows = 128;
constexpr int kTileTokens = 64;
constexpr int kTileColumns = 32;
constexpr int64_t kLeastTileColumns = 256;
// Floats from row to row: 16 bytes on, so that 8 lanes of a load of 16 bytes meet all banks.
constexpr int kTilePitch = kTileColumns + 4;
constexpr int64_t kTileShared = 2 * (int64_t(kTileRows + kTileTokens) * kTilePitch + kTileRows) * 4;
// Chunks of 32 columns that a block has at least where several share a row's columns, and how many share them at most.
constexpr int64_t kLeastChunks = 8;
constexpr int64_t kMostSplits = 16;

struct TileShape {
  int64_t row_tiles, token_tiles, splits, chunks;  // chunks of each split

  // As many splits as give each multiprocessor a block: 160 to 180 registers a thread leave room for one.
  __host__ TileShape(const model_linear_params& p, int64_t tokens, const Device& device) {
    row_tiles = ceil_div(p.out_dim, kTileRows);
    token_tiles = ceil_div(tokens, kTileTokens);
    const int64_t all = ceil_div(p.in_dim, kTileColumns), tiles = most(1, row_tiles * token_tiles);
    const int64_t wanted = most(1, least(device.multiprocessors / tiles, least(all / kLeastChunks, kMostSplits)));
    chunks = ceil_div(all, wanted);
    splits = ceil_div(all, chunks);
  }
  int64_t blocks() const { return row_tiles * token_tiles * splits; }
};

// Infinities and NaNs, which parts do not carry, and sums that passed the largest float on their way: anew, plainly.
static __device__ __noinline__ float plain_sum(const model_linear_params& p, int64_t token, int64_t row) {
  float sum = 0;
  for (int64_t i = 0; i < p.in_dim; i++) sum = fmaf(p.x[token * p.in_dim + i], weight_at(p, row, i), sum);
  return sum;
}
static inline __device__ void finish_result(const model_linear_params& p, int64_t token, int64_t row, float sum) {
  write_result(p, token, row, fabsf(sum) < INFINITY ? sum : plain_sum(p, token, row));
}

template <class T>
struct LinearTile {
  static constexpr bool kTwoParts = sizeof(T) == 4;
  const model_linear_params& p;
  char* const shared;
  const int64_t first_row, first_token;
  const bool whole;
  const int thread;
  // On their way from memory: 8 columns of two rows and of a token.
  Eight<T> weights[2];
  Eight<float> vector;
  float sums[2][4][4];

  __device__ float* weight_tile(int buffer) const { return reinterpret_cast<float*>(shared) + buffer * kTileRows * kTilePitch; }
  __device__ float* vector_tile(int buffer) const { return weight_tile(2) + buffer * kTileTokens * kTilePitch; }
  __device__ float* scales(int buffer) const { return vector_tile(2) + buffer * kTileRows; }

  __device__ __forceinline__ void load(int64_t chunk) {
    const int64_t column = chunk * kTileColumns + thread % 4 * 8, token = first_token + thread / 4;
HOTSET_UNROLL
    for (int i = 0; i < 2; i++) {
      const int64_t row = first_row + thread / 4 + 64 * i;
      weights[i].clear();
      if (row < p.out_dim && column < p.in_dim) weights[i].load(static_cast<const char*>(p.weight) + row * row_bytes<T>(p.in_dim), column, p.in_dim, whole);
    }
    vector.clear();
    if (token < p.tokens && column < p.in_dim) vector.load(reinterpret_cast<const char*>(p.x + token * p.in_dim), column, p.in_dim, whole);
  }

  __device__ __forceinline__ void store(int buffer) const {
    const int at = thread / 4 * kTilePitch + thread % 4 * 8;
HOTSET_UNROLL
    for (int i = 0; i < 2; i++) {
      float x[8];
      weights[i].values(x);
      float4* const to = reinterpret_cast<float4*>(weight_tile(buffer) + at + 64 * i * kTilePitch);
      to[0] = make_float4(x[0], x[1], x[2], x[3]);
      to[1] = make_float4(x[4], x[5], x[6], x[7]);
      if (thread % 4 == 0) scales(buffer)[thread / 4 + 64 * i] = weights[i].scale();
    }
    float4* const to = reinterpret_cast<float4*>(vector_tile(buffer) + at);
    to[0] = vector.low;
    to[1] = vector.high;
  }

  // Lane t of four has columns 8t to 8t + 7, for rows as for tokens: which are multiplied first makes no difference.
  __device__ __forceinline__ void multiply(int buffer) {
    const int lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4;
    const float* const rows = weight_tile(buffer) + (warp % 4 * 32 + g) * kTilePitch + 8 * t;
    const float* const tokens = vector_tile(buffer) + (warp / 4 * 32 + g) * kTilePitch + 8 * t;
    // Of the 8 tokens of each tile of this warp some are there.
    const int64_t there = p.tokens - first_token - warp / 4 * 32;
    float part[2][4][4];
HOTSET_UNROLL
    for (int m = 0; m < 2; m++)
HOTSET_UNROLL
      for (int n = 0; n < 4; n++)
HOTSET_UNROLL
        for (int i = 0; i < 4; i++) part[m][n][i] = 0;
HOTSET_UNROLL
    for (int half = 0; half < 2; half++) {
      float4 a[2][2], b[4];
HOTSET_UNROLL
      for (int i = 0; i < 4; i++) {
        a[i / 2][i % 2] = *reinterpret_cast<const float4*>(rows + 8 * i * kTilePitch + 4 * half);
        b[i] = *reinterpret_cast<const float4*>(tokens + 8 * i * kTilePitch + 4 * half);
      }
HOTSET_UNROLL
      for (int step = 0; step < 2; step++) {
        unsigned high[2][4], low[2][4];
HOTSET_UNROLL
        for (int m = 0; m < 2; m++) {
HOTSET_UNROLL
          for (int i = 0; i < 4; i++) {
            const float4& from = a[m][i % 2];
            const float value = i / 2 == 0 ? (step == 0 ? from.x : from.z) : (step == 0 ? from.y : from.w);
            if (kTwoParts) split_tf32(value, high[m][i], low[m][i]);
            else high[m][i] = __float_as_uint(value);
          }
        }
HOTSET_UNROLL
        for (int n = 0; n < 4; n++) {
          if (8 * n >= there) continue;
          unsigned above[2], below[2];
          split_tf32(step == 0 ? b[n].x : b[n].z, above[0], below[0]);
          split_tf32(step == 0 ? b[n].y : b[n].w, above[1], below[1]);
HOTSET_UNROLL
          for (int m = 0; m < 2; m++) {
            multiply_tf32(part[m][n], high[m], below);
            if (kTwoParts) multiply_tf32(part[m][n], low[m], above);
            multiply_tf32(part[m][n], high[m], above);
          }
        }
      }
    }
HOTSET_UNROLL
    for (int m = 0; m < 2; m++)
HOTSET_UNROLL
      for (int i = 0; i < 4; i++) {
        const float scale = sizeof(T) == 1 ? scales(buffer)[warp % 4 * 32 + 16 * m + g + i / 2 * 8] : 1;
HOTSET_UNROLL
        for (int n = 0; n < 4; n++) sums[m][n][i] = sizeof(T) == 1 ? fmaf(scale, part[m][n][i], sums[m][n][i]) : sums[m][n][i] + part[m][n][i];
      }
  }
};

template <class T>
__global__ void __launch_bounds__(kTileThreads) multiply_tiles(model_linear_params p, TileShape shape, bool whole, float* partial) {
  HOTSET_DYNAMIC_SHARED(shared);
  const int64_t token_tile = blockIdx.x % shape.token_tiles, at = blockIdx.x / shape.token_tiles;
  const int64_t split = at / shape.row_tiles, first = split * shape.chunks, end = least(first + shape.chunks, ceil_div(p.in_dim, kTileColumns));
  LinearTile<T> tile = {p, shared, at % shape.row_tiles * kTileRows, token_tile * kTileTokens, whole, int(threadIdx.x), {}, {}, {}};
  tile.load(first);
  tile.store(0);
  __syncthreads();
  for (int64_t chunk = first; chunk < end; chunk++) {
    const int buffer = int(chunk - first) % 2;
    if (chunk + 1 < end) tile.load(chunk + 1);
    tile.multiply(buffer);
    if (chunk + 1 < end) tile.store(1 - buffer);
    __syncthreads();
  }
  const int lane = tile.thread % 32, warp = tile.thread / 32;
HOTSET_UNROLL
  for (int m = 0; m < 2; m++)
HOTSET_UNROLL
    for (int n = 0; n < 4; n++)
HOTSET_UNROLL
      for (int i = 0; i < 4; i++) {
        const int64_t row = tile.first_row + warp % 4 * 32 + 16 * m + lane / 4 + i / 2 * 8;
        const int64_t token = tile.first_token + warp / 4 * 32 + 8 * n + lane % 4 * 2 + i % 2;
        if (row >= p.out_dim || token >= p.tokens) continue;
        if (shape.splits == 1) finish_result(p, token, row, tile.sums[m][n][i]);
        else partial[(split * p.tokens + token) * p.out_dim + row] = tile.sums[m][n][i];
      }
}

// The sums of the splits, in their order; a thread a result.
static __global__ void __launch_bounds__(kTileThreads) join_splits(model_linear_params p, int64_t splits, const float* partial) {
  const int64_t i = int64_t(blockIdx.x) * kTileThreads + threadIdx.x, all = p.tokens * p.out_dim;
  if (i >= all) return;
  float sum = 0;
  for (int64_t split = 0; split < splits; split++) sum += partial[split * all + i];
  finish_result(p, i / p.out_dim, i % p.out_dim, sum);
}

}  // namespace hotset
