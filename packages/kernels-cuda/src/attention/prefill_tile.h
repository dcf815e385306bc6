// A tile of rows (query tokens x heads of one KV head) meets the tokens they see, 32 at a time, on tensor cores.
#pragma once
#include "../tensor_core.h"
#include "prefill_shape.h"

namespace hotset {

// What a row of queries sees of its sequence.
struct PrefillRow {
  int first, end;
};

// TwoParts: keys and values are f32, and are split as queries and weights are.
template <bool TwoParts>
struct PrefillTile {
  const attention_prefill_params& p;
  const PrefillShape& shape;
  char* const shared;
  int* const holes;  // the first token of the last tile whose values are not all finite, or -1
  Status* const status;
  const int b, first_query, queries, length;  // queries of the sequence, and its first row
  const int tile, kv_head, first_head, value_block;
  const int thread, warp, lane, g, t;
  // Lane t of four has columns 32 J + 8 t + 4 (i % 2) + e of rows g and g + 8 (i / 2) in sums[J][e][i].
  float sums[4][4][4];
  float logits[4][4];  // tokens 8 n + 2 t + i % 2
  float largest[2], total[2];

  __device__ float* query_rows() const { return reinterpret_cast<float*>(shared); }
  __device__ float* keys() const { return reinterpret_cast<float*>(shared + shape.keys_at); }
  __device__ float* values() const { return reinterpret_cast<float*>(shared + shape.values_at); }
  __device__ int64_t* slots(int first) const { return reinterpret_cast<int64_t*>(shared + shape.slots_at) + first / kPrefillTokens % 2 * kPrefillTokens; }
  __device__ float* scales() const { return reinterpret_cast<float*>(shared + shape.scales_at); }

  // Of the sequence; -1 for none.
  __device__ int query_of(int row) const {
    const int query = tile * shape.tile_tokens + row / shape.tile_heads;
    const bool there = row < shape.tile_tokens * shape.tile_heads && query < queries && first_head + row % shape.tile_heads < (kv_head + 1) * int(p.query_heads / p.kv_heads);
    return there ? query : -1;
  }
  __device__ int head_of(int row) const { return first_head + row % shape.tile_heads; }
  __device__ PrefillRow seen_by(int query) const {
    const int end = query < 0 ? 0 : int(most(0, int64_t(length) - (queries - 1 - query)));
    return {p.window > 0 && int64_t(p.window) < end ? end - int(p.window) : 0, end};
  }

  // A thread a token: where it lies, in rows of the cache; -1 where there is none, or nobody in this tile sees it.
  __device__ __forceinline__ void find_slots(int from, const PrefillRow& all) const {
    if (thread >= kPrefillTokens) return;
    const int token = from + thread;
    int64_t slot = -1;
    if (token >= all.first && token < all.end) {
      const int64_t entry = b * p.max_pages + unsigned(token) / unsigned(p.page_size);
      const int32_t page = read_once(p.page_table + entry);
      if (page < 0 || page >= p.pages) fault(status, attention_prefill_port_page_table, entry, page);
      else slot = (page * p.kv_heads + kv_head) * p.page_size + unsigned(token) % unsigned(p.page_size);
    }
    slots(from)[thread] = slot;
  }

  __device__ __forceinline__ void stage_queries(int64_t column) const {
    const int groups = shape.key_columns / 8;
    for (int i = thread; i < kPrefillRows * groups; i += kPrefillThreads) {
      const int row = i / groups, at = i % groups * 8;
      const int query = query_of(row);
      float x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
      if (query >= 0 && column + at < p.head_dim) load_eight(p.queries, dtype_f32, int64_t(first_query + query) * p.query_heads + head_of(row), p.head_dim, column + at, shape.whole_queries, x);
      put(query_rows() + row * shape.key_pitch + at, x);
    }
  }

  // Columns of the tokens' keys or values; whether all are finite.
  __device__ __forceinline__ bool stage(int from, const void* rows, int64_t dim, int64_t column, int columns, bool whole, float* to, int pitch) const {
    const int groups = columns / 8;
    bool finite = true;
HOTSET_UNROLL_BY(4)
    for (int i = thread; i < kPrefillTokens * groups; i += kPrefillThreads) {
      const int token = i / groups, at = i % groups * 8;
      const int64_t slot = slots(from)[token];
      float x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
      if (slot >= 0 && column + at < dim) load_eight(rows, p.key_pages_dtype, slot, dim, column + at, whole, x);
HOTSET_UNROLL
      for (int e = 0; e < 8; e++) finite = finite && fabsf(x[e]) < INFINITY;
      put(to + token * pitch + at, x);
    }
    return finite;
  }
  static __device__ __forceinline__ void put(float* to, const float (&x)[8]) {
    reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
  }

  __device__ __forceinline__ void stage_keys(int from, int64_t column) const {
    stage(from, p.key_pages, p.head_dim, column, shape.key_columns, shape.whole_keys, keys(), shape.key_pitch);
  }
  __device__ __forceinline__ void stage_values(int from) const {
    bool finite = stage(from, p.value_pages, p.value_dim, int64_t(value_block) * kPrefillColumns, shape.value_columns, shape.whole_values, values(), shape.value_pitch);
    if (p.key_scale && thread < kPrefillTokens) {
      const int64_t slot = slots(from)[thread];
      scales()[thread] = slot >= 0 ? p.key_scale[slot] : 0;
      const float scale = slot >= 0 ? p.value_scale[slot] : 0;
      scales()[kPrefillTokens + thread] = scale;
      finite = finite && fabsf(scale) < INFINITY;
    }
    if (!finite) *holes = from;
  }

  // Two or three products of parts, from 0, so that what the tensor cores cut off is small beside these 8 terms alone.
  static __device__ __forceinline__ void multiply(float (&sum)[4], const unsigned (&high)[4], const unsigned (&low)[4], float b0, float b1) {
    float part[4] = {0, 0, 0, 0};
    unsigned above[2] = {__float_as_uint(b0), __float_as_uint(b1)}, below[2] = {0, 0};
    if (TwoParts) {
      split_tf32(b0, above[0], below[0]);
      split_tf32(b1, above[1], below[1]);
      multiply_tf32(part, high, below);
    }
    multiply_tf32(part, low, above);
    multiply_tf32(part, high, above);
HOTSET_UNROLL
    for (int i = 0; i < 4; i++) sum[i] += part[i];
  }

  // Adds the products of the columns that are staged.
  __device__ __forceinline__ void add_dots(bool first) {
    const float* const rows = query_rows() + (warp * 16 + g) * shape.key_pitch;
    float dots[4][4];
HOTSET_UNROLL
    for (int n = 0; n < 4; n++)
HOTSET_UNROLL
      for (int i = 0; i < 4; i++) dots[n][i] = 0;
    for (int column = 8 * t; column < shape.key_columns + 8 * t && !shape.plain; column += 32) {
HOTSET_UNROLL
      for (int half = 0; half < 2; half++) {
        const float4 a = *reinterpret_cast<const float4*>(rows + column + 4 * half), c = *reinterpret_cast<const float4*>(rows + 8 * shape.key_pitch + column + 4 * half);
        unsigned high[2][4], low[2][4];
        split_tf32(a.x, high[0][0], low[0][0]), split_tf32(c.x, high[0][1], low[0][1]), split_tf32(a.y, high[0][2], low[0][2]), split_tf32(c.y, high[0][3], low[0][3]);
        split_tf32(a.z, high[1][0], low[1][0]), split_tf32(c.z, high[1][1], low[1][1]), split_tf32(a.w, high[1][2], low[1][2]), split_tf32(c.w, high[1][3], low[1][3]);
HOTSET_UNROLL
        for (int n = 0; n < 4; n++) {
          const float4 key = *reinterpret_cast<const float4*>(keys() + (8 * n + g) * shape.key_pitch + column + 4 * half);
          multiply(dots[n], high[0], low[0], key.x, key.y);
          multiply(dots[n], high[1], low[1], key.z, key.w);
        }
      }
    }
HOTSET_UNROLL
    for (int n = 0; n < 4; n++)
HOTSET_UNROLL
      for (int i = 0; i < 4; i++) {
        // Parts do not carry infinities.
        if (shape.plain || !(fabsf(dots[n][i]) < INFINITY)) dots[n][i] = plain_dot(rows + i / 2 * 8 * shape.key_pitch, keys() + (8 * n + 2 * t + i % 2) * shape.key_pitch, shape.key_columns);
        logits[n][i] = first ? dots[n][i] : logits[n][i] + dots[n][i];
      }
  }
  // No member: `this` would go to memory, and the sums with it.
  static __device__ __noinline__ float plain_dot(const float* query, const float* key, int columns) {
    float sum = 0;
    for (int i = 0; i < columns; i++) sum = fmaf(query[i], key[i], sum);
    return sum;
  }

  // Dot products to weights exp(logit - largest), times the values' scales.
  __device__ __forceinline__ void weigh(int from, const PrefillRow (&seen)[2]) {
    float most_here[2] = {largest[0], largest[1]};
HOTSET_UNROLL
    for (int n = 0; n < 4; n++)
HOTSET_UNROLL
      for (int i = 0; i < 4; i++) {
        const int at = 8 * n + 2 * t + i % 2;
        const int token = from + at;
        float logit = logits[n][i] * p.scale;
        if (p.key_scale) logit *= scales()[at];
        if (p.soft_cap > 0) logit = p.soft_cap * tanhf(logit / p.soft_cap);
        if (token < seen[i / 2].first || token >= seen[i / 2].end || slots(from)[at] < 0) logit = -INFINITY;
        logits[n][i] = logit;
        // NaNs are left out here; they come in through their weights.
        most_here[i / 2] = fmaxf(most_here[i / 2], logit);
      }
    float factor[2];
HOTSET_UNROLL
    for (int r = 0; r < 2; r++) {
      most_here[r] = fmaxf(most_here[r], __shfl_xor_sync(kAllLanes, most_here[r], 1));
      most_here[r] = fmaxf(most_here[r], __shfl_xor_sync(kAllLanes, most_here[r], 2));
      factor[r] = most_here[r] == largest[r] ? 1 : largest[r] == -INFINITY ? 0 : __expf(largest[r] - most_here[r]);
      largest[r] = most_here[r];
      total[r] *= factor[r];
    }
HOTSET_UNROLL
    for (int n = 0; n < 4; n++)
HOTSET_UNROLL
      for (int i = 0; i < 4; i++) {
        float weight = logits[n][i] == -INFINITY ? 0 : __expf(logits[n][i] - (largest[i / 2] == -INFINITY ? 0 : largest[i / 2]));
        total[i / 2] += weight;
        if (p.key_scale && weight != 0) weight *= scales()[kPrefillTokens + 8 * n + 2 * t + i % 2];
        logits[n][i] = weight;
      }
    if (factor[0] == 1 && factor[1] == 1) return;
HOTSET_UNROLL
    for (int j = 0; j < 4; j++)
HOTSET_UNROLL
      for (int e = 0; e < 4; e++)
HOTSET_UNROLL
        for (int i = 0; i < 4; i++) sums[j][e][i] *= factor[i / 2];
  }

  // A lane's weights of tokens 2 t and 2 t + 1 are its part of a tile to multiply, as tokens t and t + 4 of eight.
  __device__ __forceinline__ void add_values() {
HOTSET_UNROLL
    for (int n = 0; n < 4; n++) {
      unsigned high[4], low[4];
      split_tf32(logits[n][0], high[0], low[0]), split_tf32(logits[n][2], high[1], low[1]), split_tf32(logits[n][1], high[2], low[2]), split_tf32(logits[n][3], high[3], low[3]);
      const float* const rows = values() + (8 * n + 2 * t) * shape.value_pitch + 4 * g;
HOTSET_UNROLL
      for (int j = 0; j < 4; j++) {
        if (32 * j >= shape.value_columns) continue;
        const float4 x = *reinterpret_cast<const float4*>(rows + 32 * j), y = *reinterpret_cast<const float4*>(rows + shape.value_pitch + 32 * j);
        multiply(sums[j][0], high, low, x.x, y.x);
        multiply(sums[j][1], high, low, x.y, y.y);
        multiply(sums[j][2], high, low, x.z, y.z);
        multiply(sums[j][3], high, low, x.w, y.w);
      }
    }
  }

  // Where values are not finite: plainly, and none where the weight is 0. Rare: a loop as small as it can be.
  __device__ __forceinline__ void add_special_values() {
HOTSET_UNROLL_BY(1)
    for (int step = 0; step < kPrefillTokens; step++) {
      const int other = step / 2 % 4, odd = step % 2;
      float weight[2] = {0, 0};
HOTSET_UNROLL
      for (int n = 0; n < 4; n++) {
        // All of them loaded, so that none has an address.
        const float even0 = logits[n][0], odd0 = logits[n][1], even1 = logits[n][2], odd1 = logits[n][3];
        weight[0] += n == step / 8 ? (odd ? odd0 : even0) : 0.0f;
        weight[1] += n == step / 8 ? (odd ? odd1 : even1) : 0.0f;
      }
      weight[0] = __shfl_xor_sync(kAllLanes, weight[0], other);
      weight[1] = __shfl_xor_sync(kAllLanes, weight[1], other);
      const float* const row = values() + (step / 8 * 8 + 2 * (t ^ other) + odd) * shape.value_pitch + 8 * t;
HOTSET_UNROLL
      for (int j = 0; j < 4; j++)
HOTSET_UNROLL
        for (int e = 0; e < 4; e++)
HOTSET_UNROLL
          for (int i = 0; i < 4; i++)
            if (32 * j < shape.value_columns && weight[i / 2] != 0) sums[j][e][i] = fmaf(weight[i / 2], row[32 * j + 4 * (i % 2) + e], sums[j][e][i]);
    }
  }

  __device__ __forceinline__ void write(const int32_t* owners) const {
HOTSET_UNROLL
    for (int r = 0; r < 2; r++) {
      float sum = total[r] + __shfl_xor_sync(kAllLanes, total[r], 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const int row = warp * 16 + g + 8 * r;
      const int query = query_of(row);
      // Where offsets do not ascend a row may be of two sequences: the later one has it.
      if (query < 0 || owners[first_query + query] != b) continue;
      const int64_t at = int64_t(first_query + query) * p.query_heads + head_of(row);
      if (value_block == 0 && t == 0) p.lse[at] = sum == 0 ? -INFINITY : (largest[r] == -INFINITY ? 0 : largest[r]) + logf(sum);
HOTSET_UNROLL
      for (int j = 0; j < 4; j++)
HOTSET_UNROLL
        for (int i = 0; i < 8; i++) {
          const int64_t column = int64_t(value_block) * kPrefillColumns + 32 * j + 8 * t + i;
          if (column < p.value_dim) p.out[at * p.value_dim + column] = sum == 0 ? 0 : sums[j][i % 4][2 * r + i / 4] / sum;
        }
    }
  }

  __device__ __forceinline__ void attend(const int32_t* owners) {
    const int first_of_tile = tile * shape.tile_tokens, last_of_tile = int(least(first_of_tile + shape.tile_tokens, queries)) - 1;
    const PrefillRow all = {seen_by(first_of_tile).first, seen_by(last_of_tile).end};
    const PrefillRow seen[2] = {seen_by(query_of(warp * 16 + g)), seen_by(query_of(warp * 16 + g + 8))};
HOTSET_UNROLL
    for (int j = 0; j < 4; j++)
HOTSET_UNROLL
      for (int e = 0; e < 4; e++)
HOTSET_UNROLL
        for (int i = 0; i < 4; i++) sums[j][e][i] = 0;
    largest[0] = largest[1] = -INFINITY;
    total[0] = total[1] = 0;
    // Tiles of tokens lie at multiples of 32 from a sequence's first, so that a row's bits depend on what it sees alone.
    const int begin = all.first / kPrefillTokens * kPrefillTokens;
    if (thread == 0) *holes = -1;
    find_slots(begin, all);
    if (p.head_dim <= kPrefillColumns) stage_queries(0);
    __syncthreads();
    // Counted, so that no token's number passes the largest integer.
    const int tiles = all.end > begin ? (all.end - 1 - begin) / kPrefillTokens + 1 : 0;
    for (int i = 0; i < tiles; i++) {
      const int from = begin + i * kPrefillTokens;
      stage_values(from);
      if (i + 1 < tiles) find_slots(from + kPrefillTokens, all);
      for (int column = 0; column < int(p.head_dim); column += kPrefillColumns) {
        if (column > 0) __syncthreads();
        stage_keys(from, column);
        if (p.head_dim > kPrefillColumns) stage_queries(column);
        __syncthreads();
        add_dots(column == 0);
      }
      weigh(from, seen);
      if (shape.plain || *holes == from) add_special_values();
      else add_values();
      __syncthreads();
    }
    write(owners);
  }
};

}  // namespace hotset
