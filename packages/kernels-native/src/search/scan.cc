// search/scan: the k rows that score best with each query; canonical scores (scan_canonical.h), exact ranks.
//
// An approximate f32 score with a certified error bound selects the rows that may be among the k best
// (scan_reservoir.h); those few are scored canonically. So the answer does not depend on the split into tasks, on
// the threads or on the instruction set, and the score matrix is never stored.
// Up to 8 queries: rows streamed where they lie (scan_stream.h); bound by memory. More: blocks of up to 192
// queries over packed panels, tiles of kQueryTile x kBlockRows sums in registers (scan_panel.h); bound by
// multiply-add. A task is 512 KiB of rows: 30 us of one core's bandwidth, far above the cost of a wake-up.
#include "../kernel.h"
#include "scan_panel.h"
#include "scan_stream.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

// One to four queries, as the first pass over the rows or a later one.
#define HOTSET_EACH_QUERIES(n, pass)        \
  switch (n) {                              \
    case 1: HOTSET_DOTS(1, pass); break;    \
    case 2: HOTSET_DOTS(2, pass); break;    \
    case 3: HOTSET_DOTS(3, pass); break;    \
    default: HOTSET_DOTS(4, pass);          \
  }
// One query follows the rows as fast as the processor fetches them; more of them have to ask for the next ones:
// 31.0 against 29.7 ms for 6 queries on 1M x 128 f32 rows (2 threads of a Zen 3, one run).
#define HOTSET_EACH_PASS(n, at, ahead)                             \
  if (at > 0) HOTSET_EACH_QUERIES(n, Pass::again)                  \
  else if (fetches_rows(p)) HOTSET_EACH_QUERIES(n, Pass::prefetch) \
  else if (n > 1) HOTSET_EACH_QUERIES(n, ahead)                    \
  else HOTSET_EACH_QUERIES(n, Pass::first)

constexpr int64_t kTaskBytes = 512 << 10;
constexpr int64_t kQueryBlock = 192;
// The queries of a block stay in the L2 cache beside one panel.
constexpr int64_t kQueryBytes = 256 << 10;
constexpr int64_t kMaxReservoirBytes = int64_t(1) << 28;

// How the work is cut and where everything lies in the scratch.
struct Shape {
  bool panel;          // packed panels, or rows streamed
  bool integers;       // streamed i8 rows
  bool split_rows;     // tasks are ranges of rows; else each task is a block of queries over all rows
  int64_t block;       // queries of a block
  int64_t blocks;      // of queries
  int64_t task_rows;
  int64_t row_tasks;
  int64_t query_bytes;  // one prepared block of queries
  int64_t terms_at, queries_at, reservoirs_at, slots_at;
  int64_t reservoir_bytes, slot_queries;  // reservoirs of one slot
  int64_t slot_bytes, work_at, buffer_at, panel_at;
  int64_t bytes;

  Shape(const search_scan_params& p, int slots) {
    const int64_t element = p.rows_dtype == dtype_f32 ? 4 : p.rows_dtype == dtype_i8 ? 1 : 2;
    panel = p.batch > kStreamQueries;
    integers = !panel && p.rows_dtype == dtype_i8;
    const int64_t fitting = kQueryBytes / (4 * p.dim) / kQueryTile * kQueryTile;
    block = panel ? least(kQueryBlock, most(2 * kQueryTile, fitting)) : kStreamQueries;
    block = least(block, round_up(most(p.batch, 1), kQueryTile));
    blocks = (p.batch + block - 1) / block;
    task_rows = most(64, kTaskBytes / (element * p.dim) / 64 * 64);
    row_tasks = (p.count + task_rows - 1) / task_rows;
    reservoir_bytes = Reservoir::bytes(p.k);
    split_rows = blocks < 4 * slots && slots * p.batch * reservoir_bytes <= kMaxReservoirBytes;

    const int64_t padded = round_up(p.dim, kLanes16) + kLanes16;
    query_bytes = round_up(panel ? round_up(block, kQueryTile) * p.dim * 4 : block * padded * (integers ? 2 : 4), 64);
    slot_queries = split_rows ? p.batch : block;
    terms_at = 0;
    queries_at = round_up(most(p.batch, 1) * int64_t(sizeof(QueryTerms)), 64);
    reservoirs_at = queries_at + (split_rows ? blocks : slots) * query_bytes;
    slots_at = round_up(reservoirs_at + slots * slot_queries * reservoir_bytes, 64);
    work_at = 0;
    buffer_at = round_up((Reservoir::capacity(p.k) + p.k) * 8, 64);
    panel_at = round_up(buffer_at + p.dim * 8, 64);
    slot_bytes = round_up(panel_at + (panel ? kBlockRows * p.dim * 4 : 0), 64);
    bytes = slots_at + slots * slot_bytes;
  }
};

// One task's view of the parameters and the scratch.
struct Scan {
  const search_scan_params& p;
  const Shape shape;
  char* const scratch;
  const int slot, slots;

  Scan(const search_scan_params& params, const Task& task) : p(params), shape(params, task.slots), scratch(task.scratch), slot(task.slot), slots(task.slots) {}

  QueryTerms* terms() const { return reinterpret_cast<QueryTerms*>(scratch + shape.terms_at); }
  char* queries(int64_t block) const { return scratch + shape.queries_at + (shape.split_rows ? block : slot) * shape.query_bytes; }
  Reservoir& reservoir(int of_slot, int64_t query) const {
    const int64_t at = shape.split_rows ? query : query % shape.block;
    return *reinterpret_cast<Reservoir*>(scratch + shape.reservoirs_at + (of_slot * shape.slot_queries + at) * shape.reservoir_bytes);
  }
  char* own() const { return scratch + shape.slots_at + slot * shape.slot_bytes; }
  uint64_t* work() const { return reinterpret_cast<uint64_t*>(own() + shape.work_at); }
  Rescorer rescorer() const { return {&p, reinterpret_cast<float*>(own() + shape.buffer_at)}; }

  // Query terms, prepared queries and empty reservoirs of one block.
  void prepare(int64_t block) const {
    const int64_t first = block * shape.block, n = least(shape.block, p.batch - first);
    char* const out = queries(block);
    float* const buffer = reinterpret_cast<float*>(own() + shape.buffer_at);
    for (int64_t i = 0; i < n; i++) {
      const float* query = p.queries + (first + i) * p.dim;
      QueryTerms& t = terms()[first + i];
      t.square = canonical_square(query, 1, p.dim);
      t.dead = is_nan(t.square);
      t.scale = 1;
      const double length = __builtin_sqrt(t.square);
      if (p.metric == search_scan_metric_cos) {
        for (int64_t j = 0; j < p.dim; j++) buffer[j] = t.square > 0 ? float(double(query[j]) / length) : 0;
        query = buffer;
      }
      double rounding = 0;
      if (shape.integers) rounding = quantise(query, i, reinterpret_cast<int16_t*>(out), t);
      else if (shape.panel) for (int64_t j = 0; j < p.dim; j++) reinterpret_cast<float*>(out)[((i / kQueryTile) * p.dim + j) * kQueryTile + i % kQueryTile] = query[j];
      else stream_query(query, p.dim, kLanes, reinterpret_cast<float*>(out) + i * stream_length(p.dim, kLanes));
      bound(t, length, rounding);
      if (shape.split_rows) for (int s = 0; s < slots; s++) reservoir(s, first + i).clear();
      else reservoir(slot, first + i).clear();
    }
  }

  // The query as scale * 16-bit integers; returns the length of what is lost.
  double quantise(const float* query, int64_t i, int16_t* out, QueryTerms& t) const {
    float largest = 0;
    double sum = 0;
    for (int64_t j = 0; j < p.dim; j++) {
      largest = magnitude(query[j]) > largest ? magnitude(query[j]) : largest;
      sum += double(magnitude(query[j]));
    }
    int16_t* const values = reinterpret_cast<int16_t*>(own() + shape.buffer_at + 4 * p.dim);  // [dim]
    t.scale = query_scale(largest, sum, p.dim);
    double lost = 0;
    for (int64_t j = 0; j < p.dim; j++) {
      const float value = t.scale > 0 && is_finite(largest) ? __builtin_rintf(query[j] / t.scale) : 0;
      values[j] = int16_t(value > 32767 ? 32767 : value < -32767 ? -32767 : value);
      const double rest = double(query[j]) - double(t.scale) * values[j];
      lost += rest * rest;
    }
    stream_query(values, p.dim, kLanes16, out + i * stream_length(p.dim, kLanes16));
    return __builtin_sqrt(lost);
  }

  // The query's part of the error bound (scan_rows.h has the rows').
  void bound(QueryTerms& t, double length, double rounding) const {
    const double unit = error_unit(p.dim);
    // Products below 2^-126 are lost, each by at most 2^-149.
    const double lost = double(p.dim) * 0x1p-140;
    if (p.metric == search_scan_metric_cos) {
      t.error_factor = 0;
      // A zero query scores 0 with every row; one whose norm overflowed says nothing.
      t.error_constant = float((unit + rounding) * 1.01 + lost);
    } else {
      t.error_factor = float((length * unit + rounding) * 1.01);
      t.error_constant = float(lost + (p.metric == search_scan_metric_l2 ? t.square * unit : 0));
    }
    if (!is_finite(t.square)) t.error_constant = INFINITY;
  }

  void scan(int64_t block, int64_t row, int64_t end) const {
    switch (p.rows_dtype) {
      case dtype_f32: return shape.panel ? scan_panels<float>(block, row, end) : scan_stream<float>(block, row, end);
      case dtype_f16: return shape.panel ? scan_panels<f16>(block, row, end) : scan_stream<f16>(block, row, end);
      case dtype_bf16: return shape.panel ? scan_panels<bf16>(block, row, end) : scan_stream<bf16>(block, row, end);
      default: return shape.panel ? scan_panels<int8_t>(block, row, end) : scan_stream<int8_t>(block, row, end);
    }
  }

  void keep(const RowBlock& rows, const float* dots, int64_t query) const {
    if (!terms()[query].dead) keep_rows(rows, dots, query, terms()[query], reservoir(slot, query), rescorer(), work());
  }

  template <class T>
  void scan_panels(int64_t block, int64_t row, int64_t end) const {
    const int64_t first = block * shape.block, n = least(shape.block, p.batch - first);
    const float* const packed = reinterpret_cast<const float*>(queries(block));
    float* const panel = reinterpret_cast<float*>(own() + shape.panel_at);
    alignas(64) float dots[kQueryTile * kBlockRows];
    const int64_t tiles = (n + kQueryTile - 1) / kQueryTile, row_bytes = p.rows_pitch * int64_t(sizeof(T));
    RowBlock blocks[2];
    row = next_rows(p, row, end, blocks[0]);
    for (int at = 0; blocks[at].n > 0; at ^= 1) {
      RowBlock &rows = blocks[at], &next = blocks[at ^ 1];
      row = next_rows(p, row, end, next);
      pack_panel<T>(p, rows, panel);
      row_terms(p, false, rows);
      // While the tiles run, the next panel's rows come into the cache: each tile fetches its share of them.
      const char* const ahead = static_cast<const char*>(p.rows) + (next.n > 0 ? next.rows[0] : rows.rows[0]) * row_bytes;
      const int64_t share = next.n * row_bytes / tiles, step = (share + p.dim - 1) / p.dim;
      for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t q = tile * kQueryTile;
        const int in_tile = int(least(kQueryTile, n - q));
        panel_tile_for(in_tile)(panel, packed + q * p.dim, p.dim, dots, ahead + tile * share, step);
        for (int i = 0; i < in_tile; i++) keep(rows, dots + i * kBlockRows, first + q + i);
      }
    }
  }

  template <class T>
  void scan_stream(int64_t block, int64_t row, int64_t end) const {
    const int64_t first = block * shape.block;
    const int n = int(least(shape.block, p.batch - first));
    alignas(64) float dots[kStreamQueries * kBlockRows];
    const T* pointers[2][kBlockRows];
    RowBlock blocks[2];
    RowOrder order(p, row, end);
    order.next(blocks[0]);
    row_pointers(p, blocks[0], pointers[0]);
    for (int at = 0; blocks[at].n > 0; at ^= 1) {
      RowBlock& rows = blocks[at];
      order.next(blocks[at ^ 1]);
      row_pointers(p, blocks[blocks[at ^ 1].n > 0 ? at ^ 1 : at], pointers[at ^ 1]);
      stream(pointers[at], reinterpret_cast<const void* const*>(pointers[at ^ 1]), rows, n, queries(block), terms() + first, dots);
      row_terms(p, shape.integers, rows);
      for (int q = 0; q < n; q++) keep(rows, dots + q * kBlockRows, first + q);
    }
  }

  // Four queries at a time; the second four meet rows that the first have brought into the cache.
  template <class T>
  void stream(const T* const* pointers, const void* const* ahead, RowBlock& rows, int n, const char* prepared, const QueryTerms*, float* dots) const {
    const int64_t pitch = stream_length(p.dim, kLanes);
    for (int at = 0; at < n; at += 4) {
      const float* const q = reinterpret_cast<const float*>(prepared) + at * pitch;
      float* const out = dots + at * kBlockRows;
#define HOTSET_DOTS(Q, pass) stream_dots<T, Q, pass>(pointers, rows.n, p.dim, q, pitch, out, rows.squares, ahead)
      HOTSET_EACH_PASS(n - at, at, Pass::first_ahead)
#undef HOTSET_DOTS
    }
  }
  void stream(const int8_t* const* pointers, const void* const*, RowBlock& rows, int n, const char* prepared, const QueryTerms* t, float* dots) const {
    const int64_t pitch = stream_length(p.dim, kLanes16);
    for (int at = 0; at < n; at += 4) {
      const int16_t* const q = reinterpret_cast<const int16_t*>(prepared) + at * pitch;
      float* const out = dots + at * kBlockRows;
#define HOTSET_DOTS(Q, pass) stream_dots_i8<Q, pass>(pointers, rows.n, p.dim, q, pitch, t + at, out, rows.squares)
      if (p.metric != search_scan_metric_ip) {
        HOTSET_EACH_PASS(n - at, at, Pass::first)
      } else if (at == 0 && fetches_rows(p)) {
        HOTSET_EACH_QUERIES(n, Pass::fetch)
      } else {
        HOTSET_EACH_QUERIES(n - at, Pass::again)
      }
#undef HOTSET_DOTS
    }
  }

  // Scores what is left of one query in the slots from..to, and writes its results.
  void finish(int64_t query, int from, int to) const {
    const QueryTerms& t = terms()[query];
    float threshold = -INFINITY;
    for (int s = from; s < to; s++) {
      Reservoir& r = reservoir(s, query);
      r.raise(p.k, work());
      threshold = r.threshold > threshold ? r.threshold : threshold;
    }
    Reservoir& best = reservoir(from, query);
    best.threshold = threshold;
    for (int s = from; s < to; s++) {
      Reservoir& r = reservoir(s, query);
      r.threshold = threshold;
      r.raise(p.k, work());
      r.resolve(query, t, rescorer(), work());
      if (s == from) continue;
      const int64_t n = best.exact + r.exact;
      memcpy(work(), best.keys(), size_t(best.exact) * 8);
      memcpy(work() + best.exact, r.keys(), size_t(r.exact) * 8);
      best.exact = int32_t(least(n, p.k));
      select_smallest(work(), n, best.exact);
      memcpy(best.keys(), work(), size_t(best.exact) * 8);
    }
    sort_keys(best.keys(), best.exact);
    const float worst = p.metric == search_scan_metric_l2 ? INFINITY : -INFINITY;
    for (int64_t i = 0; i < p.k; i++) {
      const bool filled = i < best.exact;
      p.ids[query * p.k + i] = filled ? int32_t(uint32_t(best.keys()[i])) : -1;
      p.scores[query * p.k + i] = filled ? score_of_key(p.metric, best.keys()[i]) : worst;
    }
    p.found[query] = uint32_t(best.exact);
  }
};

}  // namespace

void search_scan_plan(const search_scan_params& p, int slots, KernelPlan& plan) {
  const Shape shape(p, slots);
  plan.name = shape.panel ? "panel" : shape.integers ? "stream-i16" : "stream";
  plan.scratch_bytes = shape.bytes;
  if (p.batch == 0) return;
  plan.phases = shape.split_rows ? 3 : 1;
  plan.tasks[0] = shape.blocks;
  plan.tasks[1] = shape.blocks * shape.row_tasks;
  plan.tasks[2] = p.batch;
}

void search_scan_task(const search_scan_params& p, const Task& task) {
  const Scan scan(p, task);
  const Shape& shape = scan.shape;
  if (!shape.split_rows) {
    const int64_t first = task.index * shape.block;
    scan.prepare(task.index);
    scan.scan(task.index, 0, p.count);
    for (int64_t q = first; q < least(first + shape.block, p.batch); q++) scan.finish(q, task.slot, task.slot + 1);
  } else if (task.phase == 0) {
    scan.prepare(task.index);
  } else if (task.phase == 1) {
    const int64_t block = task.index / shape.row_tasks, row = task.index % shape.row_tasks * shape.task_rows;
    scan.scan(block, row, least(row + shape.task_rows, p.count));
  } else {
    scan.finish(task.index, 0, task.slots);
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
