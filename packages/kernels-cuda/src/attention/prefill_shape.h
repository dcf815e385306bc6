// How attention/prefill is cut: tiles of rows, tiles of tokens, columns at a time; and how eight of them are loaded.
#pragma once
#include "../device.h"
#include "../numbers.h"
#include "gen/params.h"

namespace hotset {

constexpr int kPrefillThreads = 128;
constexpr int kPrefillRows = 64;  // 16 a warp
constexpr int kPrefillTokens = 32;
// Columns of keys, and of values, at a time.
constexpr int kPrefillColumns = 128;
// Components and tokens from which on 62 roundings are fewer than the op allows, 32 and about one for each of these.
constexpr int64_t kLeastTerms = 36;

struct PrefillShape {
  int tile_tokens, tile_heads;        // of a tile's rows
  int64_t head_blocks, value_blocks;  // blocks that share the query heads of a KV head, and the columns of the values
  int64_t tiles;                      // at most
  int key_columns, value_columns, key_pitch, value_pitch;  // floats from row to row: 16 bytes on, for the banks
  int64_t keys_at, values_at, slots_at, scales_at, shared_bytes;
  bool whole_keys, whole_values, whole_queries;  // rows start on 16 bytes, and end with 8 columns
  bool plain;  // too few terms for what the tensor cores cut off: multiply-adds

  __host__ explicit PrefillShape(const attention_prefill_params& p) {
    const int64_t group = p.query_heads / p.kv_heads;
    tile_heads = int(least(group, kPrefillRows));
    tile_tokens = kPrefillRows / tile_heads;
    head_blocks = ceil_div(group, tile_heads);
    value_blocks = ceil_div(p.value_dim, kPrefillColumns);
    // Sequence b has places from floor(first / tile_tokens) + b up to those of b + 1.
    tiles = p.tokens / tile_tokens + p.batch;
    key_columns = int(least(kPrefillColumns, round_up(p.head_dim, 32)));
    value_columns = int(least(kPrefillColumns, round_up(p.value_dim, 32)));
    key_pitch = key_columns + 4;
    value_pitch = value_columns + 4;
    keys_at = int64_t(kPrefillRows) * key_pitch * 4;
    values_at = keys_at + int64_t(kPrefillTokens) * key_pitch * 4;
    slots_at = values_at + int64_t(kPrefillTokens) * value_pitch * 4;
    scales_at = slots_at + 2 * kPrefillTokens * 8;
    shared_bytes = scales_at + 2 * kPrefillTokens * 4;
    plain = p.head_dim + p.max_pages * p.page_size < kLeastTerms;
    whole_keys = p.head_dim % 16 == 0 && reinterpret_cast<uintptr_t>(p.key_pages) % 16 == 0;
    whole_values = p.value_dim % 16 == 0 && reinterpret_cast<uintptr_t>(p.value_pages) % 16 == 0;
    whole_queries = p.head_dim % 16 == 0 && reinterpret_cast<uintptr_t>(p.queries) % 16 == 0;
  }
  int64_t blocks(const attention_prefill_params& p) const { return tiles * p.kv_heads * head_blocks * value_blocks; }
};

// Columns `column` to `column` + 7 of a row, as f32; zeros behind its end.
static __device__ __forceinline__ void load_eight(const void* values, uint32_t dtype, int64_t row, int64_t dim, int64_t column, bool whole, float (&out)[8]) {
  const int64_t at = row * dim + column;
  if (whole) {
    if (dtype == dtype_f32) {
      const uint4* const from = reinterpret_cast<const uint4*>(static_cast<const float*>(values) + at);
      const uint4 low = __ldg(from), high = __ldg(from + 1);
      out[0] = __uint_as_float(low.x), out[1] = __uint_as_float(low.y), out[2] = __uint_as_float(low.z), out[3] = __uint_as_float(low.w);
      out[4] = __uint_as_float(high.x), out[5] = __uint_as_float(high.y), out[6] = __uint_as_float(high.z), out[7] = __uint_as_float(high.w);
    } else if (dtype == dtype_i8) {
      const uint2 words = __ldg(reinterpret_cast<const uint2*>(static_cast<const int8_t*>(values) + at));
      widen_word(static_cast<const int8_t*>(nullptr), words.x, out);
      widen_word(static_cast<const int8_t*>(nullptr), words.y, out + 4);
    } else {
      const uint4 words = __ldg(reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(values) + at));
      if (dtype == dtype_f16) widen<f16>(words, out);
      else widen<bf16>(words, out);
    }
    return;
  }
HOTSET_UNROLL
  for (int i = 0; i < 8; i++) {
    if (column + i >= dim) out[i] = 0;
    else if (dtype == dtype_f32) out[i] = static_cast<const float*>(values)[at + i];
    else if (dtype == dtype_i8) out[i] = widen_one(static_cast<const int8_t*>(values) + at + i);
    else if (dtype == dtype_f16) out[i] = widen_one(static_cast<const f16*>(values) + at + i);
    else out[i] = widen_one(static_cast<const bf16*>(values) + at + i);
  }
}

}  // namespace hotset
