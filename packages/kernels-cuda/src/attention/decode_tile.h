// A chunk of a context meets the query heads of one KV head: tile after tile, the next one under way meanwhile.
#pragma once
#include "../async_copy.h"
#include "decode_shape.h"

namespace hotset {

// How rows come in: by vectors of 16 bytes, by words, or element by element.
struct RowUnits {
  int key, value;
};

template <class T, int H, class Context>
struct DecodeBlock {
  static constexpr int E = kVector<T>;
  static constexpr int N = kLaneWidth<H> / E;  // vectors of a key that a lane takes
  static constexpr int S = kColumnVectors<T>;  // and of a value

  const Context& context;
  const attention_decode_params& p;
  const Seen& seen;
  const int64_t unit;
  const DecodeShape& shape;
  const RowUnits units;
  char* const shared;
  const int64_t b, kv_head, first, end;
  const int head, heads, value_block;  // query heads of this block, and columns
  const int thread, warp, lane, head_group, part, parts;
  float query[H][kLaneWidth<H>];
  float sums[H][S * E];

  __device__ int64_t* slots(int64_t i) const { return reinterpret_cast<int64_t*>(shared) + i % 3 * shape.tile; }
  __device__ float* queries() const { return reinterpret_cast<float*>(shared + shape.queries_at); }
  __device__ char* keys(int64_t i) const { return shared + shape.keys_at + i % 2 * shape.tile * shape.key_vectors * 16; }
  __device__ char* values(int64_t i) const { return shared + shape.values_at + i % 2 * shape.tile * shape.value_vectors * 16; }
  __device__ float* logits() const { return reinterpret_cast<float*>(shared + shape.logits_at); }
  // Of each head: the largest logit, the sum of the weights, what earlier sums are multiplied by.
  __device__ float4* states() const { return reinterpret_cast<float4*>(shared + shape.states_at); }
  __device__ int& tile_with_holes() const { return *reinterpret_cast<int*>(states() + H * shape.head_groups); }
  __device__ float* scales(int64_t i) const { return reinterpret_cast<float*>(shared + shape.scales_at) + i % 2 * 2 * shape.tile; }
  __device__ int tokens_of(int64_t i) const { return int(least(shape.tile, end - first - i * shape.tile)); }

  __device__ __forceinline__ void start() {
    const int width = shape.key_vectors * E, block_heads = H * shape.head_groups;
    const float* const from = p.queries + (b * p.query_heads + head) * p.head_dim;
    for (int i = thread; i < block_heads * width; i += kDecodeThreads) {
      const int h = i / width, column = i % width;
      queries()[i] = h < heads && column < p.head_dim ? from[int64_t(h) * p.head_dim + column] : 0;
    }
    // Zeros behind the components, which no copy writes.
    if (width > p.head_dim)
      for (int i = thread; i < 2 * shape.tile * shape.key_vectors * 4; i += kDecodeThreads) reinterpret_cast<unsigned*>(keys(0))[i] = 0;
    for (int h = thread; h < block_heads; h += kDecodeThreads) states()[h] = make_float4(-INFINITY, 0, 0, 0);
    if (thread == 0) tile_with_holes() = -1;
HOTSET_UNROLL
    for (int h = 0; h < H; h++)
HOTSET_UNROLL
      for (int i = 0; i < S * E; i++) sums[h][i] = 0;
  }

  // This thread's token of a tile, -1 for none, and its page.
  __device__ __forceinline__ int32_t find_page(int64_t i, int64_t& token, Status* status) const {
    const int64_t position = first + i * shape.tile + thread;
    token = thread >= shape.tile || position >= end ? -1 : context.token(b, unit, seen, position, status);
    if (token < 0) return -1;
    return read_once(p.page_table + b * p.max_pages + unsigned(token) / unsigned(p.page_size));
  }
  // Its place in the cache, in rows; -1 for none.
  __device__ __forceinline__ void keep_slot(int64_t i, int64_t token, int32_t page, Status* status) const {
    if (thread >= shape.tile) return;
    int64_t slot = -1;
    if (token >= 0) {
      if (page < 0 || page >= p.pages) fault(status, attention_decode_port_page_table, b * p.max_pages + unsigned(token) / unsigned(p.page_size), page);
      else slot = (page * p.kv_heads + kv_head) * p.page_size + unsigned(token) % unsigned(p.page_size);
    }
    slots(i)[thread] = slot;
  }

  // Asks for the keys, values and scales of a tile whose slots are known; zeros for tokens that are not there.
  __device__ __forceinline__ void ask(int64_t i) const {
    const int64_t column = int64_t(value_block) * 32 * S * E;
    rows_in(i, static_cast<const T*>(p.key_pages), p.head_dim, 0, p.head_dim, keys(i), shape.key_vectors, units.key);
    rows_in(i, static_cast<const T*>(p.value_pages), p.value_dim, column, least(p.value_dim - column, shape.value_vectors * E), values(i), shape.value_vectors, units.value);
    if (sizeof(T) == 1 && thread < shape.tile) {
      const int64_t slot = slots(i)[thread];
      async_copy<4>(scales(i) + thread, p.key_scale + most(slot, 0), slot >= 0);
      async_copy<4>(scales(i) + shape.tile + thread, p.value_scale + most(slot, 0), slot >= 0);
    }
    async_commit();
  }

  __device__ __forceinline__ void rows_in(int64_t i, const T* from, int64_t dim, int64_t column, int64_t columns, char* to, int vectors, int unit) const {
    const int count = int(columns * int64_t(sizeof(T)) / unit);
    const int lanes = count >= 32 ? 32 : power_of_two_from(count);
    const int64_t* const slot_of = slots(i);
    for (int row = thread / lanes; row < shape.tile; row += kDecodeThreads / lanes) {
      const int64_t slot = slot_of[row];
      const char* const source = reinterpret_cast<const char*>(from + most(slot, 0) * dim + column);
      char* const target = to + row * vectors * 16;
      if (unit == 16) {
        for (int v = thread % lanes; v < count; v += lanes) async_copy<16>(target + 16 * v, source + 16 * v, slot >= 0);
      } else if (unit == 4) {
        for (int v = thread % lanes; v < count; v += lanes) async_copy<4>(target + 4 * v, source + 4 * v, slot >= 0);
      } else {
        for (int v = thread % lanes; v < count; v += lanes) {
          T element = {};
          if (slot >= 0) element = reinterpret_cast<const T*>(source)[v];
          reinterpret_cast<T*>(target)[v] = element;
        }
      }
    }
  }

  // Part of this warp's queries in registers, as the lanes of a row share its vectors: lane, lane + lanes...
  __device__ __forceinline__ void take_queries(int segment) {
    const int width = shape.key_vectors * E;
    const int at = lane % shape.key_lanes;
HOTSET_UNROLL
    for (int h = 0; h < H; h++)
HOTSET_UNROLL
      for (int j = 0; j < N; j++) {
        const int vector = (segment * N + j) * shape.key_lanes + at;
HOTSET_UNROLL
        for (int e = 0; e < E; e++) query[h][j * E + e] = vector < shape.key_vectors ? queries()[(head_group * H + h) * width + vector * E + e] : 0;
      }
  }

  // logits [head groups][tile][H]: dot products.
  __device__ __forceinline__ void dots(int64_t i) {
    const uint4* const rows = reinterpret_cast<const uint4*>(keys(i));
    float* const out = logits() + head_group * shape.tile * H;
    const int lanes = shape.key_lanes, at = lane % lanes, step = 32 / lanes, tokens = tokens_of(i);
    for (int segment = 0; segment < shape.key_segments; segment++) {
      if (shape.key_segments > 1) take_queries(segment);
HOTSET_UNROLL_BY(2)
      for (int base = part * step; base < tokens; base += parts * step) {
        const int row = base + lane / lanes;
        float dot[H];
HOTSET_UNROLL
        for (int h = 0; h < H; h++) dot[h] = 0;
HOTSET_UNROLL
        for (int j = 0; j < N; j++) {
          const int vector = (segment * N + j) * lanes + at;
          if (row >= tokens || vector >= shape.key_vectors) continue;
          float x[E];
          widen<T>(rows[row * shape.key_vectors + vector], x);
HOTSET_UNROLL
          for (int e = 0; e < E; e++)
HOTSET_UNROLL
            for (int h = 0; h < H; h++) dot[h] = fmaf(query[h][j * E + e], x[e], dot[h]);
        }
        for (int apart = lanes / 2; apart > 0; apart /= 2)
HOTSET_UNROLL
          for (int h = 0; h < H; h++) dot[h] += __shfl_xor_sync(kAllLanes, dot[h], apart);
        if (at > 0 || row >= tokens) continue;
HOTSET_UNROLL
        for (int h = 0; h < H; h++) out[row * H + h] = segment == 0 ? dot[h] : out[row * H + h] + dot[h];
      }
    }
  }

  // What a head's logit is given by where its token stands: less for the distance from the query, and the mask. The token is
  // looked up, and its entry compared, once more.
  __device__ float bias(int64_t query_head, int64_t position, Status* status) const {
    const int64_t token = context.token(b, unit, seen, position, status), tokens = p.max_pages * p.page_size;
    if (token < 0) return -INFINITY;
    float x = p.slopes ? -p.slopes[query_head] * float(seen.end - 1 - token) : 0;
    const int64_t row = p.mask_heads == 1 ? b : b * p.mask_heads + query_head;
    if (p.mask && p.mask_dtype == dtype_f32) x += static_cast<const float*>(p.mask)[row * tokens + token];
    else if (p.mask && !(static_cast<const uint32_t*>(p.mask)[row * ceil_div(tokens, 32) + token / 32] >> (token % 32) & 1)) x = -INFINITY;
    return x;
  }

  __device__ __forceinline__ float logit_of(float dot, int64_t i, int t) const {
    float logit = dot * p.scale;
    if (sizeof(T) == 1) logit *= scales(i)[t];
    return p.soft_cap > 0 ? p.soft_cap * tanhf(logit / p.soft_cap) : logit;
  }

  // Dot products to weights exp(logit - largest), times the value scales; a warp a head.
  __device__ __forceinline__ void weigh(int64_t i, Status* status) const {
    constexpr int kEach = kMostTileTokens / 32;
    const int tokens = tokens_of(i);
    const int64_t* const slot_of = slots(i);
    for (int h = warp; h < H * shape.head_groups; h += kDecodeWarps) {
      float* const weights = logits() + h / H * shape.tile * H + h % H;
      const float4 before = states()[h];
      // Apart, so that steps without them keep their registers.
      const bool biased = (p.slopes || p.mask) && h < heads;
HOTSET_UNROLL_BY(1)
      for (int t = biased ? lane : tokens; t < tokens; t += 32)
        if (slot_of[t] >= 0) weights[t * H] = logit_of(weights[t * H], i, t) + bias(head + h, first + i * shape.tile + t, status);
      float x[kEach];
      float largest = before.x;
HOTSET_UNROLL
      for (int j = 0; j < kEach; j++) {
        const int t = lane + 32 * j;
        x[j] = -INFINITY;
        if (t >= tokens || slot_of[t] < 0) continue;
        const float logit = biased ? weights[t * H] : logit_of(weights[t * H], i, t);
        x[j] = logit;
        if (logit == -INFINITY) tile_with_holes() = int(i);
        // NaNs are left out here; they come in through their weights.
        largest = fmaxf(largest, logit);
      }
      largest = warp_max(largest);
      const float base = largest == -INFINITY ? 0 : largest;
      float sum = 0;
HOTSET_UNROLL
      for (int j = 0; j < kEach; j++) {
        const int t = lane + 32 * j;
        if (t >= tokens) continue;
        float weight = x[j] == -INFINITY ? 0 : __expf(x[j] - base);
        sum += weight;
        if (sizeof(T) == 1 && !Context::kMasses && x[j] != -INFINITY) weight *= scales(i)[shape.tile + t];
        weights[t * H] = weight;
      }
      if constexpr (Context::kMasses) {
        __syncwarp();
        if (h < heads && value_block == 0) context.add_masses(b, head + h, first, first + i * shape.tile, tokens, shape.chunk_tokens(seen.end - seen.first), weights, H, largest, seen, lane);
        __syncwarp();
HOTSET_UNROLL
        for (int j = 0; j < kEach; j++) {
          const int t = lane + 32 * j;
          if (sizeof(T) == 1 && t < tokens && x[j] != -INFINITY) weights[t * H] *= scales(i)[shape.tile + t];
        }
      }
      for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
      const float factor = largest == before.x ? 1 : before.x == -INFINITY ? 0 : __expf(before.x - largest);
      if (lane == 0) states()[h] = make_float4(largest, (before.y == 0 ? 0 : before.y * factor) + sum, factor, 0);
    }
  }

  __device__ __forceinline__ void add_values(int64_t i) {
    float factor[H];
HOTSET_UNROLL
    for (int h = 0; h < H; h++) {
      factor[h] = states()[head_group * H + h].z;
      if (factor[h] == 1) continue;
HOTSET_UNROLL
      for (int j = 0; j < S * E; j++) sums[h][j] *= factor[h];
    }
    // A weight of 0 whose logit is -Inf keeps out what an infinite value would make of it.
    if (tile_with_holes() == int(i)) add_rows<true>(i);
    else add_rows<false>(i);
  }

  template <bool Holes>
  __device__ __forceinline__ void add_rows(int64_t i) {
    const uint4* const rows = reinterpret_cast<const uint4*>(values(i));
    const float* const weights = logits() + head_group * shape.tile * H;
    const int lanes = shape.value_lanes, at = lane % lanes, step = 32 / lanes, tokens = tokens_of(i);
HOTSET_UNROLL_BY(4)
    for (int row = part * step + lane / lanes; row < tokens; row += parts * step) {
      float weight[H];
HOTSET_UNROLL
      for (int h = 0; h < H; h++) weight[h] = weights[row * H + h];
HOTSET_UNROLL
      for (int s = 0; s < S; s++) {
        const int vector = at + s * lanes;
        if (vector >= shape.value_vectors) continue;
        float x[E];
        widen<T>(rows[row * shape.value_vectors + vector], x);
HOTSET_UNROLL
        for (int h = 0; h < H; h++)
HOTSET_UNROLL
          for (int e = 0; e < E; e++)
            if (!Holes || weight[h] != 0) sums[h][s * E + e] = fmaf(weight[h], x[e], sums[h][s * E + e]);
      }
    }
  }

  // The sums of lanes, then of warps, in order; then out: stats [2] and sums [valueDim] of each head.
  __device__ __forceinline__ void write(int64_t chunk, float* stats, float* out) {
    for (int apart = shape.value_lanes; apart < 32; apart *= 2)
HOTSET_UNROLL
      for (int h = 0; h < H; h++)
HOTSET_UNROLL
        for (int j = 0; j < S * E; j++) sums[h][j] += __shfl_xor_sync(kAllLanes, sums[h][j], apart);
    const int columns = shape.value_vectors * E;
    const int64_t row = (b * p.query_heads + head) * shape.most_chunks + chunk;
    for (int h = thread; h < heads && value_block == 0; h += kDecodeThreads) {
      stats[(row + h * shape.most_chunks) * 2] = states()[h].x;
      stats[(row + h * shape.most_chunks) * 2 + 1] = states()[h].y;
    }
    __syncthreads();
    float* const both = reinterpret_cast<float*>(keys(0));
    if (lane < shape.value_lanes) {
HOTSET_UNROLL
      for (int h = 0; h < H; h++)
HOTSET_UNROLL
        for (int s = 0; s < S; s++)
HOTSET_UNROLL
          for (int e = 0; e < E; e++)
            if (lane + s * shape.value_lanes < shape.value_vectors) both[(warp * H + h) * columns + (lane + s * shape.value_lanes) * E + e] = sums[h][s * E + e];
    }
    __syncthreads();
    const int64_t column = int64_t(value_block) * 32 * S * E;
    const int there = int(least(columns, p.value_dim - column));
    for (int i = thread; i < heads * there; i += kDecodeThreads) {
      const int h = i / there, c = i % there;
      float sum = 0;
      for (int w = 0; w < parts; w++) sum += both[((w * shape.head_groups + h / H) * H + h % H) * columns + c];
      out[(row + h * shape.most_chunks) * p.value_dim + column + c] = sum;
    }
  }
};

}  // namespace hotset
