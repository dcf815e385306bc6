// search/scan: the k rows that score best with each query; canonical scores (scan_terms.h), so the ids and the bits of
// the CPU backends, alone or in a batch.
//
// Rows are scored in f32 with a certified bound of the error, and never stored: a block keeps the rows of its chunk that
// can score best (scan_list.h). A second launch scores the few that can be among the k in f64, in the canonical order
// (scan_finish.h); chunks that may have lost one, because more rows tie than a list holds, are scored row by row.
// Up to 8 queries stream the rows (scan_stream.h), 16 bytes a load, 4 loads a lane: bound by memory, as a query is one
// multiply-add for 4 bytes (100k x 128 f32: 51 MB, 11 us of an H200's 4.8 TB/s). More: panels on tensor cores
// (scan_panel.cu), 64 queries a pass over the rows. f64 takes part in some k + 32 rows a query: nothing on any card.
#include "../launch.h"
#include "scan_finish.h"
#include "scan_stream.h"

namespace hotset {

namespace {

int element_bytes(uint32_t dtype) { return dtype == dtype_f32 ? 4 : dtype == dtype_i8 ? 1 : 2; }

int64_t stream_shared_bytes(const ListSize& size, int queries) { return int64_t(queries) * kScanWarps * size.capacity * 8; }

// The most tiles of queries whose lists fit; 0 where not even one tile does.
int tiles_of(const ListSize& size, uint32_t dtype, const Device& device) {
  const int tiles[] = {8, 2, 1};
  for (const int n : tiles)
    if (panel_shared_bytes(size, 8 * n, dtype == dtype_f32 ? 2 : 1) + 1024 <= device.shared_bytes) return n;
  return 0;
}

ScanShape shape_of(const search_scan_params& p, const Device& device) {
  ScanShape s = {};
  const int bytes = element_bytes(p.rows_dtype), vector = 16 / bytes;
  const uint64_t bits = uint64_t(p.rows_pitch * bytes) | reinterpret_cast<uintptr_t>(p.rows) | reinterpret_cast<uintptr_t>(p.queries) | uint64_t(p.dim * 4);
  s.whole = bits % 16 == 0;
  s.scaled = p.rows_dtype == dtype_f16 || p.rows_dtype == dtype_i8;
  s.lanes = int(least(32, power_of_two_from(int(s.whole ? ceil_div(p.dim / vector, 4) : ceil_div(p.dim, 8)))));
  s.size = ListSize::of(p.k, kListRoom);
  const int most_tiles = tiles_of(s.size, p.rows_dtype, device);
  const int streamed = stream_shared_bytes(s.size, kStreamQueries) <= 64 << 10 ? kStreamQueries : 1;
  s.tiles = p.batch <= kStreamBatch ? 0 : p.batch <= 16 ? int(least(2, most_tiles)) : most_tiles;
  s.queries = s.tiles > 0 ? 8 * s.tiles : p.batch == 1 ? 1 : streamed;
  s.window = most(1, least(p.batch, most(64, kListBytes / (8 * s.size.high))));
  const int64_t blocks = 4 * device.multiprocessors, least_rows = most(kLeastChunkRows, 4 * s.size.high);
  const int64_t most_chunks = most(1, ceil_div(p.count, least_rows));
  s.chunks = least(most_chunks, ceil_div(s.tiles > 0 ? blocks / 2 : blocks, ceil_div(s.window, s.queries)));
  s.chunk_rows = round_up(most(1, ceil_div(p.count, s.chunks)), kPanelRows);
  s.chunks = most(1, ceil_div(p.count, s.chunk_rows));
  // As many as any smaller batch and count needs, too.
  const int64_t lists = least(s.window * most_chunks, blocks * most(streamed, 8 * most_tiles) + s.window);
  s.padded = round_up(p.dim, kPanelColumns);
  s.heads_at = 256;
  s.entries_at = round_up(s.heads_at + lists * 8, 256);
  s.results_at = round_up(s.entries_at + lists * s.size.high * 8, 256);
  s.terms_at = round_up(s.results_at + (s.window * (p.k + 1) + lists) * 8, 256);
  s.parts_at = round_up(s.terms_at + s.window * int64_t(sizeof(QueryTerms)), 256);
  s.scratch_bytes = s.parts_at + 2 * s.window * s.padded * 2;
  return s;
}

template <class T, int Q>
cudaError_t stream(const search_scan_params& p, const ScanShape& s, int64_t first, int64_t last, const Run& run) {
  const auto kernel = s.whole ? stream_rows<T, Q, true> : stream_rows<T, Q, false>;
  return launch(kernel, ceil_div(last - first, Q) * s.chunks, kScanThreads, stream_shared_bytes(s.size, Q), run.stream, p, s, first, last, run.scratch);
}

template <class T>
cudaError_t score(const search_scan_params& p, const ScanShape& s, int64_t first, int64_t last, const Run& run) {
  if (s.tiles > 0) return run_panels<T>(p, s, first, last, run);
  return s.queries == 1 ? stream<T, 1>(p, s, first, last, run) : stream<T, kStreamQueries>(p, s, first, last, run);
}

template <class T>
cudaError_t run_typed(const search_scan_params& p, const Run& run) {
  const ScanShape s = shape_of(p, *run.device);
  const int64_t finish_bytes = finish_shared_bytes(s), exact_bytes = int64_t(exact_capacity(s) + 2) * 8;
  for (int64_t first = 0; first < p.batch; first += s.window) {
    const int64_t last = least(first + s.window, p.batch);
    cudaError_t error = score<T>(p, s, first, last, run);
    if (error == cudaSuccess) error = launch(pick_results<T>, last - first, kScanThreads, finish_bytes, run.stream, p, s, first, run.scratch);
    if (error == cudaSuccess) error = launch(repair_chunks<T>, least((last - first) * s.chunks, 4 * run.device->multiprocessors), kScanThreads, exact_bytes, run.stream, p, s, first, run.scratch);
    if (error == cudaSuccess) error = launch(join_repaired<T>, least(last - first, run.device->multiprocessors), kScanThreads, exact_bytes, run.stream, p, s, first, run.scratch);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

void search_scan_plan(const search_scan_params& p, const Device& device, KernelPlan& plan) {
  const ScanShape s = shape_of(p, device);
  plan.name = s.tiles > 0 ? "panels" : "stream";
  plan.scratch_bytes = s.scratch_bytes;
  if (s.tiles == 0 && stream_shared_bytes(s.size, s.queries) > device.shared_bytes) plan.refusal = "the lists of k results do not fit the device's shared memory";
}

cudaError_t search_scan_run(const search_scan_params& p, const Run& run) {
  switch (p.rows_dtype) {
    case dtype_f32: return run_typed<float>(p, run);
    case dtype_f16: return run_typed<f16>(p, run);
    case dtype_bf16: return run_typed<bf16>(p, run);
    default: return run_typed<int8_t>(p, run);
  }
}

}  // namespace hotset
