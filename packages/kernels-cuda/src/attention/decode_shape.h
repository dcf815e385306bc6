// How attention/decode is cut: chunks of a context, tiles of a chunk, and what a block of threads holds.
#pragma once
#include "../device.h"
#include "../numbers.h"
#include "gen/params.h"

namespace hotset {

constexpr int kDecodeThreads = 128;
constexpr int kDecodeWarps = kDecodeThreads / 32;
constexpr int kLeastChunk = 128;
// Bytes of keys or values of a tile: with two tiles of both under way three blocks fit a multiprocessor.
constexpr int kTileBytes = 16 << 10;
constexpr int kMostTileTokens = 128;

// Vectors of value columns of a lane, and components of a query: what registers hold beside the sums.
template <class T>
constexpr int kColumnVectors = sizeof(T) == 4 ? 2 : 1;
template <int Heads>
constexpr int kLaneWidth = Heads == 4 ? 16 : 32;

// The tokens that a sequence sees; none where its length is out of range.
struct Seen {
  int64_t first, end;
  bool valid;
};
static inline __host__ __device__ Seen seen_by(const attention_decode_params& p, int32_t length) {
  if (length < 0 || length > p.max_pages * p.page_size) return {0, 0, false};
  const int64_t first = p.window > 0 && int64_t(p.window) < length ? length - int64_t(p.window) : 0;
  return {first, length, true};
}

// Where the positions of a context lie in its sequence: here they are its tokens. Heads of a unit share them, and a KV head.
struct WholeContext {
  static constexpr bool kMasses = false;
  const attention_decode_params p;

  __host__ __device__ int64_t units() const { return p.kv_heads; }
  __host__ __device__ int64_t most_positions() const { return p.max_pages * p.page_size; }
  __device__ int64_t kv_head(int64_t unit) const { return unit; }
  // First position and end, given what the sequence sees.
  __device__ Seen positions(const Seen& seen) const { return seen; }
  // The token at a position; -1 for none.
  __device__ int64_t token(int64_t, int64_t, const Seen&, int64_t position, Status*) const { return position; }
};

struct DecodeShape {
  int heads;         // query heads of a warp: 1, 2 or 4
  int head_groups;   // of a block: 1, 2 or 4, each with its share of the warps
  int head_blocks;   // blocks that share a KV head's query heads
  int value_blocks;  // blocks that share the columns of the values
  int tile;          // tokens
  int key_vectors, value_vectors;  // 16 bytes each; of the columns of one block
  int key_lanes, key_segments;     // lanes of a row, and passes over its columns
  int value_lanes;
  int64_t target_chunks;           // of a sequence, about
  int64_t most_chunks;
  int64_t shared_bytes, scratch_bytes;
  int64_t queries_at, keys_at, values_at, logits_at, states_at, scales_at;  // in shared memory; slots come first
  int64_t sums_at;  // in the scratch, after the states

  // By the own length only: a sequence has the same chunks alone and in a batch.
  __host__ __device__ int64_t chunk_tokens(int64_t tokens) const { return most(kLeastChunk, round_up(ceil_div(tokens, target_chunks), kLeastChunk)); }

  template <class T, class Context>
  void set(const Context& context, const Device& device) {
    const attention_decode_params& p = context.p;
    const int group = int(p.query_heads / context.units());
    const int columns = int(ceil_div(p.value_dim, kVector<T>)), most_columns = 32 * kColumnVectors<T>;
    value_blocks = int(ceil_div(columns, most_columns));
    value_vectors = int(least(columns, most_columns));
    value_lanes = int(least(32, power_of_two_from(value_vectors)));
    key_vectors = int(ceil_div(p.head_dim, kVector<T>));
    place_all<T>(group, device.shared_bytes);
    head_blocks = int(ceil_div(group, heads * head_groups));
    target_chunks = most(8, least(256, ceil_div(4 * device.multiprocessors, context.units())));
    most_chunks = least(target_chunks, ceil_div(context.most_positions(), kLeastChunk));
    sums_at = round_up(p.batch * p.query_heads * most_chunks * 8, 256);
    scratch_bytes = sums_at + p.batch * p.query_heads * most_chunks * p.value_dim * 4;
  }

 private:
  // The largest tile of which three blocks fit a multiprocessor; fewer heads where long queries leave no room.
  template <class T>
  void place_all(int group, int64_t room) {
    for (heads = group >= 3 ? 4 : group; heads >= 1; heads /= 2) {
      head_groups = int(least(kDecodeWarps, power_of_two_from(int(ceil_div(group, heads)))));
      for (; head_groups >= 1; head_groups /= 2) {
        const int width = heads == 4 ? 16 : 32;
        key_lanes = int(least(32, power_of_two_from(int(ceil_div(key_vectors * kVector<T>, width)))));
        key_segments = int(ceil_div(key_vectors * kVector<T>, key_lanes * width));
        for (tile = kMostTileTokens; tile > 1; tile /= 2)
          if (tile * 16 * most(key_vectors, value_vectors) <= kTileBytes && place<T>() <= least(room, 100 << 10)) break;
        shared_bytes = place<T>();
        if (shared_bytes <= room) return;
      }
    }
    heads = head_groups = 1;
  }

  // Shared memory, in bytes from its start. Slots and scales are those of three tiles.
  template <class T>
  int64_t place() {
    const int block_heads = heads * head_groups;
    queries_at = round_up(3 * tile * 8, 128);
    keys_at = round_up(queries_at + int64_t(block_heads) * key_vectors * kVector<T> * 4, 128);
    values_at = keys_at + 2 * int64_t(tile) * key_vectors * 16;
    logits_at = round_up(values_at + 2 * int64_t(tile) * value_vectors * 16, 128);
    states_at = round_up(logits_at + int64_t(block_heads) * tile * 4, 16);
    scales_at = states_at + block_heads * 16 + 16;
    int64_t end = scales_at + (sizeof(T) == 1 ? 3 * 2 * tile * 4 : 0);
    // At the end the warps of a head group add up what they have, in place of the keys.
    const int64_t sums = int64_t(kDecodeWarps) * heads * value_vectors * kVector<T> * 4;
    return most(end, keys_at + sums);
  }
};

}  // namespace hotset
