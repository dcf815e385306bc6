// attention/prefill: out = softmax(softCap(scale q K^T)) V, causal, of many tokens over a paged cache.
//
// Online softmax in f32 over tiles of 64 keys that lie at multiples of 64 from a sequence's first token, so that a row's
// bits depend on nothing but what it sees. A task is about 96 rows (query tokens x heads of one KV head): each tile of
// keys and values is widened once for them (prefill_tile.h), and 6 rows x 2 vectors of sums stay in registers, as in a
// matrix product. Rows of one register tile that see different ends of a tile go on alone there: weights of 0 times
// what they must not see would bring in its infinities. Bound by multiply-add.
// Page numbers, offsets and lengths are compared where they are loaded, and used as compared.
#include "../kernel.h"
#include "prefill_tile.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskRows = 96;

// The sequence of a query, or -1; the tokens it sees are first to end.
struct Query {
  int32_t sequence, first, end;
};

struct Shape {
  int64_t group, tokens, rows, pitch;  // of a task: tokens, rows; floats of a row of values
  int64_t slots_at, packed_at, panel_at, values_at, logits_at, sums_at, states_at, slot_bytes, bytes;

  Shape(const attention_prefill_params& p, int slots) {
    group = p.query_heads / p.kv_heads;
    tokens = most(1, kTaskRows / group);
    rows = tokens * group;
    pitch = round_up(p.value_dim, kLanes);
    slots_at = round_up(p.tokens * int64_t(sizeof(Query)), 64);
    packed_at = 0;
    panel_at = round_up(round_up(rows, kRowTile) * p.head_dim * 4, 64);
    values_at = panel_at + p.head_dim * kKeys * 4;
    logits_at = values_at + kKeys * pitch * 4;
    sums_at = round_up(logits_at + rows * kKeys * 4, 64);
    states_at = round_up(sums_at + rows * pitch * 4, 64);
    slot_bytes = round_up(states_at + rows * int64_t(sizeof(RowState)), 64);
    bytes = slots_at + slots * slot_bytes;
  }
};

struct Prefill {
  const attention_prefill_params& p;
  const Shape shape;
  const Task& task;
  char* const own;

  Prefill(const attention_prefill_params& params, const Task& t)
      : p(params), shape(params, t.slots), task(t), own(t.scratch + shape.slots_at + t.slot * shape.slot_bytes) {}

  Query* queries() const { return reinterpret_cast<Query*>(task.scratch); }
  float* floats(int64_t at) const { return reinterpret_cast<float*>(own + at); }
  RowState* states() const { return reinterpret_cast<RowState*>(own + shape.states_at); }

  void find_queries() const {
    for (int64_t t = 0; t < p.tokens; t++) queries()[t] = {-1, 0, 0};
    const auto word = [](const int32_t* from, int64_t i) { return int32_t(read_once(reinterpret_cast<const uint32_t*>(from) + i)); };
    int32_t first = word(p.query_offsets, 0);
    for (int64_t b = 0; b < p.batch; b++) {
      const int32_t begin = first, end = first = word(p.query_offsets, b + 1), length = word(p.lengths, b);
      const bool bad_begin = begin < 0 || begin > p.tokens, bad_end = end < begin || end > p.tokens;
      if (bad_begin) fail(*task.status, attention_prefill_port_query_offsets, b, begin);
      else if (bad_end) fail(*task.status, attention_prefill_port_query_offsets, b + 1, end);
      if (bad_begin || bad_end || length < 0 || length > p.max_pages * p.page_size) continue;
      for (int32_t t = begin; t < end; t++) {
        const int32_t seen = length - (end - 1 - t);
        if (seen <= 0) continue;
        queries()[t] = {int32_t(b), p.window > 0 && int64_t(p.window) < seen ? seen - int32_t(p.window) : 0, seen};
      }
    }
    for (int64_t b = 0; b < p.batch; b++) {
      const int32_t length = word(p.lengths, b);
      if (length < 0 || length > p.max_pages * p.page_size) fail(*task.status, attention_prefill_port_lengths, b, length);
    }
  }

  // The queries of a task, sequence by sequence, for one KV head.
  void attend() const {
    const int64_t kv_head = task.index % p.kv_heads, first = task.index / p.kv_heads * shape.tokens, end = least(first + shape.tokens, p.tokens);
    for (int64_t t = first; t < end;) {
      const int32_t sequence = queries()[t].sequence;
      int64_t n = 1;
      while (t + n < end && queries()[t + n].sequence == sequence) n++;
      if (sequence < 0) write_nothing(t, n, kv_head);
      else
        switch (p.key_pages_dtype) {
          case dtype_f32: attend_run<float>(sequence, t, n, kv_head); break;
          case dtype_f16: attend_run<f16>(sequence, t, n, kv_head); break;
          case dtype_bf16: attend_run<bf16>(sequence, t, n, kv_head); break;
          default: attend_run<int8_t>(sequence, t, n, kv_head);
        }
      t += n;
    }
  }

  void write_nothing(int64_t t, int64_t n, int64_t kv_head) const {
    for (int64_t i = t; i < t + n; i++) {
      const int64_t row = i * p.query_heads + kv_head * shape.group;
      memset(p.out + row * p.value_dim, 0, size_t(shape.group * p.value_dim) * sizeof(float));
      for (int64_t h = 0; h < shape.group; h++) p.lse[row + h] = -INFINITY;
    }
  }

  // Row r of a run is head r % group of its token r / group.
  int64_t row_of(int64_t t, int64_t kv_head, int64_t r) const { return (t + r / shape.group) * p.query_heads + kv_head * shape.group + r % shape.group; }

  template <class T>
  void attend_run(int32_t sequence, int64_t t, int64_t n, int64_t kv_head) const {
    const int64_t rows = n * shape.group;
    float* const packed = floats(shape.packed_at);
    for (int64_t r = 0; r < rows; r++) {
      const float* const query = p.queries + row_of(t, kv_head, r) * p.head_dim;
      float* const to = packed + r / kRowTile * kRowTile * p.head_dim + r % kRowTile;
      for (int64_t i = 0; i < p.head_dim; i++) to[i * kRowTile] = query[i];
      states()[r] = {-INFINITY, 0};
    }
    memset(floats(shape.sums_at), 0, size_t(rows * shape.pitch) * sizeof(float));
    const Query *const all = queries() + t;
    const int64_t end = all[n - 1].end;
    for (int64_t base = all[0].first / kKeys * kKeys; base < end; base += kKeys) {
      KeyTile tile;
      find_keys(sequence, kv_head, base, most(base, all[0].first), least(base + kKeys, end), tile);
      pack_keys(static_cast<const T*>(p.key_pages), p.key_scale, p.head_dim, tile, floats(shape.panel_at));
      pack_values(static_cast<const T*>(p.value_pages), p.value_scale, p.value_dim, shape.pitch, tile, floats(shape.values_at));
      for (int64_t r = 0; r < rows; r += kRowTile) attend_rows(tile, all, base, r, int(least(kRowTile, rows - r)));
    }
    for (int64_t r = 0; r < rows; r++) write_row(row_of(t, kv_head, r), states()[r], floats(shape.sums_at) + r * shape.pitch);
  }

  // Where the keys of tokens from..to lie, in a tile that begins with token `base`.
  void find_keys(int32_t sequence, int64_t kv_head, int64_t base, int64_t from, int64_t to, KeyTile& tile) const {
    for (int i = 0; i < kKeys; i++) tile.slots[i] = -1;
    tile.first = int(from - base);
    tile.end = int(to - base);
    tile.whole = true;
    while (from < to) {
      const int64_t entry = sequence * p.max_pages + from / p.page_size, offset = from % p.page_size;
      const int64_t run = least(p.page_size - offset, to - from);
      const int32_t page = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.page_table) + entry));
      if (page < 0 || page >= p.pages) {
        fail(*task.status, attention_prefill_port_page_table, entry, page);
        tile.whole = false;
      } else {
        const int64_t slot = (page * p.kv_heads + kv_head) * p.page_size + offset;
        for (int64_t i = 0; i < run; i++) tile.slots[from - base + i] = slot + i;
      }
      from += run;
    }
  }

  Seen seen_of(const Query& query, int64_t base) const {
    return {int(least(kKeys, most(0, query.first - base))), int(least(kKeys, most(0, query.end - base)))};
  }

  void attend_rows(const KeyTile& tile, const Query* all, int64_t base, int64_t r, int rows) const {
    // Ends ascend from token to token, and so do beginnings.
    const Seen first = seen_of(all[r / shape.group], base), last = seen_of(all[(r + rows - 1) / shape.group], base);
    if (first.first >= kKeys || last.end == 0) return;
    float* const logits = floats(shape.logits_at) + r * kKeys;
    const float* const packed = floats(shape.packed_at) + r * p.head_dim;
    for (int k = first.first / kKeyBlock * kKeyBlock; k < last.end; k += kKeyBlock)
      with_rows(rows, [&](auto q) { key_products<decltype(q)::value>(floats(shape.panel_at) + k, packed, p.head_dim, logits + k); });
    const float* const values = floats(shape.values_at);
    float* const sums = floats(shape.sums_at) + r * shape.pitch;
    // What all of them see, in the middle.
    const int common = last.first, common_end = first.end > common ? first.end : common;
    const bool together = rows > 1 && common < common_end;
    const auto alone = [&](int i, int from, int to) {
      if (from < to) value_products<1>(logits + i * kKeys, values, shape.pitch, from, to, sums + i * shape.pitch);
    };
    for (int i = 0; i < rows; i++) {
      const Seen seen = seen_of(all[(r + i) / shape.group], base);
      if (seen.first >= seen.end) continue;
      weigh_row(tile, seen, p.scale, p.soft_cap, logits + i * kKeys, states()[r + i], sums + i * shape.pitch, shape.pitch);
      alone(i, seen.first, together ? common : seen.end);
    }
    if (!together) return;
    with_rows(rows, [&](auto q) { value_products<decltype(q)::value>(logits, values, shape.pitch, common, common_end, sums); });
    for (int i = 0; i < rows; i++) alone(i, common_end, seen_of(all[(r + i) / shape.group], base).end);
  }

  void write_row(int64_t row, RowState state, float* sums) const {
    const f32v by = splat(state.sum == 0 ? 1 : state.sum);
    for (int64_t i = 0; i < shape.pitch; i += kLanes) store(sums + i, div(load(sums + i), by));
    memcpy(p.out + row * p.value_dim, sums, size_t(p.value_dim) * sizeof(float));
    const float base = state.largest == -INFINITY ? 0 : state.largest;
    p.lse[row] = state.sum == 0 ? -INFINITY : float(double(base) + ln(double(state.sum)));
  }
};

}  // namespace

void attention_prefill_plan(const attention_prefill_params& p, int slots, KernelPlan& plan) {
  const Shape shape(p, slots);
  plan.name = "tiles";
  plan.scratch_bytes = shape.bytes;
  if (p.tokens == 0) return;
  plan.phases = 2;
  plan.tasks[0] = 1;
  plan.tasks[1] = (p.tokens + shape.tokens - 1) / shape.tokens * p.kv_heads;
}

void attention_prefill_task(const attention_prefill_params& p, const Task& task) {
  const Prefill prefill(p, task);
  if (task.phase == 0) prefill.find_queries();
  else prefill.attend();
}

}  // namespace HOTSET_ISA
}  // namespace hotset
