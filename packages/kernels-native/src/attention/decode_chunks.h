// A decode step over a context of tokens, shared by attention/decode and its siblings: tiles, chunks and the join.
//
// A `Context` says which tokens the heads of a unit see, and in which order: all of a sequence, or those of a list. Its
// chunks are cut by the number of these tokens only, so the same tokens in the same order give the same bits.
#pragma once
#include "../kernel.h"
#include "decode_params.h"
#include "decode_tile.h"

namespace hotset {
namespace HOTSET_ISA {
namespace {

constexpr int64_t kChunkTokens = 512;
constexpr int64_t kMaxChunks = 64;
// Tasks enough for any number of cores; chunks of a sequence share one where there are more.
constexpr int64_t kTasks = 256;

inline int64_t chunk_tokens(int64_t tokens) { return most(kChunkTokens, round_up((tokens + kMaxChunks - 1) / kMaxChunks, kTileTokens)); }

struct Shape {
  int64_t units, group;  // heads that see the same tokens of the same KV head make a unit
  int64_t query_pitch, value_pitch, chunks, parts;  // pitches: whole vectors
  bool wide;  // keys and values are widened first
  int64_t states_at, state_floats, slots_at;
  int64_t queries_at, logits_at, sums_at, wide_at, slot_bytes, bytes;

  // `tokens`: the most that a unit can see; `context_bytes`: scratch of the contexts, which comes first.
  Shape(const attention_decode_params& p, int64_t heads, int64_t tokens, int64_t context_bytes, int slots) {
    group = heads;
    units = p.query_heads / heads;
    query_pitch = round_up(p.head_dim, 16);
    value_pitch = round_up(p.value_dim, 16);
    chunks = (tokens + chunk_tokens(tokens) - 1) / chunk_tokens(tokens);
    // A shorter sequence may have more chunks than the longest one.
    chunks = least(kMaxChunks, most(chunks, (tokens + kChunkTokens - 1) / kChunkTokens));
    parts = least(chunks, (kTasks + p.batch * units - 1) / most(1, p.batch * units));
    state_floats = value_pitch + 16;  // largest, sum, and the rest of a cache line; then the values
    states_at = round_up(context_bytes, 64);
    slots_at = round_up(states_at + p.batch * p.query_heads * chunks * state_floats * 4, 64);
    queries_at = 0;
    logits_at = round_up(group * query_pitch * 4, 64);
    sums_at = logits_at + group * kTileTokens * 4;
    wide_at = round_up(sums_at + group * value_pitch * 4, 64);
    wide = (group > kHeadBlock && p.key_pages_dtype != dtype_f32) || p.head_dim % kLanes || p.value_dim % kLanes;
    slot_bytes = round_up(wide_at + (wide ? kTileTokens * most(query_pitch, value_pitch) * 4 : 0), 64);
    bytes = slots_at + slots * slot_bytes;
  }
};

// Slots of tokens first..end of a sequence, for a KV head, behind those in the tile, while there is room; tokens in pages
// that do not exist are left out. Returns where it stopped; `added(place, token, count)` is told of each run.
template <class Added>
inline int64_t add_tokens(const attention_decode_params& p, int64_t b, int64_t kv_head, int64_t first, int64_t end, Tile& tile, Status& status, const Added& added) {
  int n = tile.tokens;
  while (first < end && n < kTileTokens) {
    const int64_t entry = b * p.max_pages + first / p.page_size, offset = first % p.page_size;
    const int64_t run = least(least(p.page_size - offset, end - first), kTileTokens - n);
    const int32_t page = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.page_table) + entry));
    first += run;
    if (page < 0 || page >= p.pages) {
      fail(status, attention_decode_port_page_table, entry, page);
      continue;
    }
    const int64_t slot = (page * p.kv_heads + kv_head) * p.page_size + offset;
    added(n, first - run, run);
    if (biased(p))
      for (int64_t i = 0; i < run; i++) tile.places[n + i] = int32_t(first - run + i);
    for (int64_t i = 0; i < run; i++) tile.slots[n++] = slot + i;
  }
  tile.tokens = n;
  return first;
}

// The tokens that a sequence sees.
struct Range {
  int32_t first, end;
};

inline Range range_of(const attention_decode_params& p, int64_t b, Status& status) {
  const int32_t length = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.lengths) + b));
  if (length < 0 || length > p.max_pages * p.page_size) {
    fail(status, attention_decode_port_lengths, b, length);
    return {-1, -1};
  }
  return {p.window > 0 && int64_t(p.window) < length ? length - int32_t(p.window) : 0, length};
}

// All tokens of a sequence, in their order, for the heads of a KV head. Ranges are found once, by `prepare`.
struct WholeContext {
  static constexpr bool kMasses = false;
  using TileOf = Tile;
  const attention_decode_params& p;
  Range* const ranges;

  WholeContext(const attention_decode_params& params, char* scratch) : p(params), ranges(reinterpret_cast<Range*>(scratch)) {}

  static int64_t bytes(const attention_decode_params& p) { return p.batch * int64_t(sizeof(Range)); }
  Shape shape(int slots) const { return Shape(p, p.query_heads / p.kv_heads, p.max_pages * p.page_size, bytes(p), slots); }
  void prepare(Status& status) const {
    for (int64_t b = 0; b < p.batch; b++) ranges[b] = range_of(p, b, status);
  }
  int64_t tokens(int64_t b, int64_t) const { return ranges[b].end - ranges[b].first; }
  // The query's token.
  int64_t last(int64_t b, int64_t) const { return ranges[b].end - 1; }

  struct Cursor {
    const attention_decode_params& p;
    int64_t b, kv_head, first, end;
    void fill(Tile& tile, Status& status) {
      first = add_tokens(p, b, kv_head, first, end, tile, status, [](int, int64_t, int64_t) {});
    }
  };
  Cursor cursor(int64_t b, int64_t kv_head, int64_t chunk, int64_t left) const {
    const int64_t first = ranges[b].first + chunk * chunk_tokens(tokens(b, kv_head));
    return {p, b, kv_head, first, first + left};
  }
};

// One task's view of the parameters and the scratch.
template <class Context>
struct Decode {
  const attention_decode_params& p;
  const Context& context;
  const Shape shape;
  const Task& task;
  char* const own;
  float* const queries;
  float* const logits;
  float* const sums;

  Decode(const Context& c, const Task& t)
      : p(c.p),
        context(c),
        shape(c.shape(t.slots)),
        task(t),
        own(t.scratch + shape.slots_at + t.slot * shape.slot_bytes),
        queries(reinterpret_cast<float*>(own + shape.queries_at)),
        logits(reinterpret_cast<float*>(own + shape.logits_at)),
        sums(reinterpret_cast<float*>(own + shape.sums_at)) {}

  float* state(int64_t b, int64_t head, int64_t chunk) const {
    return reinterpret_cast<float*>(task.scratch + shape.states_at) + ((b * p.query_heads + head) * shape.chunks + chunk) * shape.state_floats;
  }

  // The chunks of one part of one sequence, for the query heads of one unit.
  void attend() const {
    const int64_t part = task.index % shape.parts, unit = task.index / shape.parts % shape.units, b = task.index / shape.parts / shape.units;
    const int64_t tokens = context.tokens(b, unit), each = chunk_tokens(tokens), chunks = (tokens + each - 1) / each;
    const int64_t share = (chunks + shape.parts - 1) / shape.parts, end = least(chunks, (part + 1) * share);
    if (part * share >= end) return;
    const float* const query = p.queries + (b * p.query_heads + unit * shape.group) * p.head_dim;
    memset(queries, 0, size_t(shape.group * shape.query_pitch) * sizeof(float));
    for (int64_t h = 0; h < shape.group; h++) memcpy(queries + h * shape.query_pitch, query + h * p.head_dim, size_t(p.head_dim) * sizeof(float));
    for (int64_t chunk = part * share; chunk < end; chunk++) {
      const int64_t left = least(each, tokens - chunk * each);
      switch (p.key_pages_dtype) {
        case dtype_f32: attend_chunk<float>(b, unit, chunk, left); break;
        case dtype_f16: attend_chunk<f16>(b, unit, chunk, left); break;
        case dtype_bf16: attend_chunk<bf16>(b, unit, chunk, left); break;
        default: attend_chunk<int8_t>(b, unit, chunk, left);
      }
    }
  }

  template <class T>
  void attend_chunk(int64_t b, int64_t unit, int64_t chunk, int64_t left) const {
    for (int64_t h = 0; h < shape.group; h++) head_state(b, unit, h, chunk) = {-INFINITY, 0};
    memset(sums, 0, size_t(shape.group * shape.value_pitch) * sizeof(float));
    auto cursor = context.cursor(b, unit, chunk, left);
    typename Context::TileOf tiles[2];
    find_tile<T>(cursor, tiles[0]);
    for (int at = 0; tiles[at].tokens > 0; at ^= 1) {
      find_tile<T>(cursor, tiles[at ^ 1]);
      place_rows_behind(tiles[at], tiles[at ^ 1]);
      attend_tile<T>(b, unit, chunk, tiles[at]);
    }
    for (int64_t h = 0; h < shape.group; h++)
      memcpy(state(b, unit * shape.group + h, chunk) + 16, sums + h * shape.value_pitch, size_t(shape.value_pitch) * sizeof(float));
  }

  HeadState& head_state(int64_t b, int64_t unit, int64_t h, int64_t chunk) const {
    return *reinterpret_cast<HeadState*>(state(b, unit * shape.group + h, chunk));
  }

  template <class T, class Cursor>
  void find_tile(Cursor& cursor, typename Context::TileOf& tile) const {
    tile.tokens = 0;
    cursor.fill(tile, *task.status);
    place_rows<T>(p, tile);
  }

  template <class T>
  void attend_tile(int64_t b, int64_t unit, int64_t chunk, const typename Context::TileOf& tile) const {
    const T* const* const keys = reinterpret_cast<const T* const*>(tile.keys);
    const T* const* const values = reinterpret_cast<const T* const*>(tile.values);
    if (!shape.wide) {
      attend_rows(b, unit, chunk, tile, [&] { return keys; }, p.head_dim, [&] { return values; }, p.value_dim, true);
      return;
    }
    const float* pointers[kTileTokens + 4];
    float* const out = reinterpret_cast<float*>(own + shape.wide_at);
    const auto widened = [&](const T* const* rows, int64_t dim, int64_t pitch) -> const float* const* {
      widen_rows(rows, tile.tokens, dim, pitch, out, pointers);
      return pointers;
    };
    attend_rows(
        b, unit, chunk, tile, [&] { return widened(keys, p.head_dim, shape.query_pitch); }, shape.query_pitch,
        [&] { return widened(values, p.value_dim, shape.value_pitch); }, shape.value_pitch, false);
  }

  // All logits first, then all sums: the keys may make room for the values.
  template <class Keys, class Values>
  void attend_rows(int64_t b, int64_t unit, int64_t chunk, const typename Context::TileOf& tile, const Keys& keys, int64_t key_dim, const Values& values, int64_t value_dim, bool fresh) const {
    const auto key_rows = keys();
    for (int64_t h = 0; h < shape.group; h += kHeadBlock)
      with_heads(shape.group - h, [&](auto heads) {
        key_dots<decltype(heads)::value>(key_rows, tile.tokens, key_dim, queries + h * shape.query_pitch, shape.query_pitch, fresh && h == 0, logits + h * kTileTokens);
      });
    const bool scaled = p.key_scale != nullptr;
    Bias bias;
    for (int64_t h = 0; h < shape.group; h++) {
      HeadState& head = head_state(b, unit, h, chunk);
      const float* const added = biased(p) ? bias.of(p, tile, b, unit * shape.group + h, context.last(b, unit), h == 0) : nullptr;
      const float before = weigh(tile, scaled, Context::kMasses, p.scale, p.soft_cap, added, logits + h * kTileTokens, head);
      if constexpr (Context::kMasses) {
        context.add_masses(b, unit * shape.group + h, chunk, tile, logits + h * kTileTokens, head.largest);
        if (scaled) scale_weights(tile, logits + h * kTileTokens);
      }
      if (before == 1) continue;
      float* const s = sums + h * shape.value_pitch;
      for (int64_t i = 0; i < shape.value_pitch; i += kLanes) store(s + i, mul(load(s + i), splat(before)));
    }
    const auto value_rows = values();
    for (int64_t h = 0; h < shape.group; h += kHeadBlock)
      with_heads(shape.group - h, [&](auto heads) {
        value_sums<decltype(heads)::value>(value_rows, tile.tokens, value_dim, fresh && h == 0, logits + h * kTileTokens, sums + h * shape.value_pitch, shape.value_pitch);
      });
  }

  // Joins the chunks of the heads of one unit, in order, and the sink.
  void join() const {
    const int64_t unit = task.index % shape.units, b = task.index / shape.units;
    const int64_t tokens = context.tokens(b, unit), each = chunk_tokens(tokens), chunks = (tokens + each - 1) / each;
    for (int64_t h = unit * shape.group; h < (unit + 1) * shape.group; h++) {
      const float sink = p.sinks ? p.sinks[h] : -INFINITY;
      float largest = sink > -INFINITY ? sink : -INFINITY;
      for (int64_t c = 0; c < chunks; c++) largest = state(b, h, c)[0] > largest ? state(b, h, c)[0] : largest;
      const float base = largest == -INFINITY ? 0 : largest;
      float sum = sink == -INFINITY ? 0 : exp(sink - base);
      memset(sums, 0, size_t(shape.value_pitch) * sizeof(float));
      for (int64_t c = 0; c < chunks; c++) {
        const float* const s = state(b, h, c);
        // A chunk without tokens has sum 0; one whose logits are all NaN has sum NaN, and largest -Inf.
        if (s[1] == 0) continue;
        const float weight = exp(s[0] - base);
        sum += weight * s[1];
        for (int64_t i = 0; i < shape.value_pitch; i += kLanes) store(sums + i, madd(splat(weight), load(s + 16 + i), load(sums + i)));
      }
      const int64_t row = b * p.query_heads + h;
      const f32v by = splat(sum == 0 ? 1 : sum);
      for (int64_t i = 0; i < shape.value_pitch; i += kLanes) store(sums + i, div(load(sums + i), by));
      memcpy(p.out + row * p.value_dim, sums, size_t(p.value_dim) * sizeof(float));
      p.lse[row] = sum == 0 ? -INFINITY : float(double(base) + ln(double(sum)));
      if constexpr (Context::kMasses) context.write_masses(b, unit, h, chunks, base, sum);
    }
  }
};

}  // namespace
}  // namespace HOTSET_ISA
}  // namespace hotset
