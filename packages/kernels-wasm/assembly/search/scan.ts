// search/scan: the k rows that score best with each query; canonical scores (scan-canonical.ts), exact ranks.
//
// An approximate f32 score with a certified error bound selects the rows that may be among the k best
// (scan-reservoir.ts); those few are scored canonically. So the answer does not depend on the split into tasks, on
// the threads or on the build, and the score matrix is never stored.
// Up to 8 queries: rows streamed where they lie (scan-stream.ts); bound by memory. More: blocks of up to 192
// queries over packed panels of 8 rows, 8 x 4 sums in registers (scan-panel.ts); bound by multiply-add.
// i8 rows meet queries of 16-bit integers in both. A task is 512 KiB of rows: 40 us of one core's bandwidth.
import { DTYPE_BF16, DTYPE_F16, DTYPE_F32, SEARCH_SCAN_METRIC_IP, SEARCH_SCAN_METRIC_L2, SearchScanParams } from "../gen/params";
import { KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";
import { score_of_key } from "./scan-canonical";
import { PANEL_ROWS, pack_panel, panel_tile, QUERY_TILE } from "./scan-panel";
import { clear_last_tile, prepare_query } from "./scan-query";
import { merge_exact, Reservoir, raise_threshold, resolve_rows, sort_keys } from "./scan-reservoir";
import { keep_rows, keep_scaled, largest_scale, RowBlock, row_terms } from "./scan-rows";
import { QueryTerms, Scan, scan_of } from "./scan-shape";
import { DOTS_PITCH, stream } from "./scan-stream";

// Queries that are summed side by side.
const STREAM_TILE: u32 = 4;

export function search_scan_plan(params: SearchScanParams, slots: u32, out: KernelPlan): void {
  const scan = changetype<Scan>(changetype<usize>(out) + offsetof<KernelPlan>());
  scan.cut(params, slots);
  out.kernel = scan.panel ? (scan.integers ? 3 : 2) : scan.integers ? 1 : 0;
  out.phases = params.batch == 0 ? 0 : scan.split ? 3 : 1;
  out.tasks0 = scan.blocks;
  out.tasks1 = scan.blocks * scan.row_tasks;
  out.tasks2 = params.batch;
  out.scratch_bytes = <f64>scan.capacity_bytes();
}

export function search_scan_task(
  params: SearchScanParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const scan = scan_of(params, scratch, slot, slots);
  if (!scan.split) {
    prepare(scan, task);
    for (let row: u32 = 0; row < params.count; row += scan.task_rows) scan_block(scan, task, row, min(row + scan.task_rows, params.count));
    for (let q = task * scan.block, end = min(q + scan.block, params.batch); q < end; q++) finish(scan, q, slot, slot + 1);
  } else if (phase == 0) {
    prepare(scan, task);
  } else if (phase == 1) {
    const row = (task % scan.row_tasks) * scan.task_rows;
    scan_block(scan, task / scan.row_tasks, row, min(row + scan.task_rows, params.count));
  } else {
    finish(scan, task, 0, slots);
  }
}

/** Query terms, prepared queries and empty reservoirs of one block. */
function prepare(scan: Scan, block: u32): void {
  const first = block * scan.block;
  const n = min(scan.block, scan.params.batch - first);
  if (scan.panel) clear_last_tile(scan, block, n);
  for (let i: u32 = 0; i < n; i++) {
    prepare_query(scan, block, i);
    if (!scan.split) scan.reservoir(scan.slot, first + i).clear();
    else for (let slot: u32 = 0; slot < scan.slots; slot++) scan.reservoir(slot, first + i).clear();
  }
}

function scan_block(scan: Scan, block: u32, row: u32, end: u32): void {
  const dtype = scan.params.rows_dtype;
  if (scan.panel) {
    if (dtype == DTYPE_F32) scan_panels<f32>(scan, block, row, end);
    else if (dtype == DTYPE_F16) scan_panels<u16>(scan, block, row, end);
    else if (dtype == DTYPE_BF16) scan_panels<i16>(scan, block, row, end);
    else scan_panels<i8>(scan, block, row, end);
  } else if (dtype == DTYPE_F32) scan_stream<f32>(scan, block, row, end);
  else if (dtype == DTYPE_F16) scan_stream<u16>(scan, block, row, end);
  else if (dtype == DTYPE_BF16) scan_stream<i16>(scan, block, row, end);
  else scan_stream<i8>(scan, block, row, end);
}

function scan_stream<T>(scan: Scan, block: u32, row: u32, end: u32): void {
  const params = scan.params;
  const first = block * scan.block;
  const n = min(scan.block, params.batch - first);
  const queries = scan.queries(block);
  const pitch = scan.query_length * simd.query_bytes<T>();
  const rows = scan.rows();
  const scaled = scan.integers && params.metric == SEARCH_SCAN_METRIC_IP;
  // Rows that a filter leaves out may be most: their scales are not worth reading.
  if (scaled) rows.largest_scale = params.filter == 0 ? largest_scale(params.row_scale, row, end) : Infinity;
  rows.open(row, end);
  while (rows.next(params, sizeof<T>())) {
    for (let q: u32 = 0; q < n; q += STREAM_TILE) {
      stream<T>(scan, rows, queries + q * pitch, min(STREAM_TILE, n - q), !scaled && q == 0);
      if (!scaled && q == 0) row_terms(params, rows, 0, rows.n);
      keep_tile(scan, rows, 0, rows.n, first, q, n, DOTS_PITCH, scaled);
    }
  }
}

function scan_panels<T>(scan: Scan, block: u32, row: u32, end: u32): void {
  const params = scan.params;
  const first = block * scan.block;
  const n = min(scan.block, params.batch - first);
  const queries = scan.queries(block);
  const pitch = scan.query_length * simd.query_bytes<T>();
  const rows = scan.rows();
  const dots = scan.dots();
  const panel = scan.panel_memory();
  rows.open(row, end);
  while (rows.next(params, sizeof<T>())) {
    for (let r: u32 = 0; r < rows.n; r += PANEL_ROWS) {
      pack_panel<T>(scan, rows, r);
      row_terms(params, rows, r, r + PANEL_ROWS);
      for (let q: u32 = 0; q < n; q += QUERY_TILE) {
        panel_tile<T>(panel, queries + q * pitch, params.dim, dots);
        keep_tile(scan, rows, r, min(r + PANEL_ROWS, rows.n), first, q, n, PANEL_ROWS * 4, false);
      }
    }
  }
}

/** Keeps rows from..to (all of them where they are `scaled`) for up to four queries from `q` on, of the n from `first` on. */
function keep_tile(scan: Scan, rows: RowBlock, from: u32, to: u32, first: u32, q: u32, n: u32, pitch: usize, scaled: bool): void {
  const reservoir_bytes = <usize>scan.reservoir_bytes;
  let dots = scan.dots();
  let terms = changetype<usize>(scan.terms(first + q));
  let reservoir = changetype<usize>(scan.reservoir_at(scan.slot, (scan.split ? first : 0) + q));
  for (const end = min(q + 4, n); q < end; q++) {
    if (scaled) keep_scaled(scan, rows, dots, first + q, changetype<QueryTerms>(terms), changetype<Reservoir>(reservoir));
    else keep_rows(scan, rows, from, to, dots, first + q, changetype<QueryTerms>(terms), changetype<Reservoir>(reservoir));
    dots += pitch;
    terms += offsetof<QueryTerms>();
    reservoir += reservoir_bytes;
  }
}

/** Scores what is left of one query in the slots from..to, and writes its results. */
function finish(scan: Scan, query: u32, from: u32, to: u32): void {
  const params = scan.params;
  const k = params.k;
  const metric = params.metric;
  const square = scan.terms(query).square;
  const work = scan.work();
  let threshold: f32 = -Infinity;
  for (let slot = from; slot < to; slot++) {
    const reservoir = scan.reservoir(slot, query);
    raise_threshold(reservoir, k, work);
    threshold = max(threshold, reservoir.threshold);
  }
  const best = scan.reservoir(from, query);
  for (let slot = from; slot < to; slot++) {
    const reservoir = scan.reservoir(slot, query);
    reservoir.threshold = threshold;
    raise_threshold(reservoir, k, work);
    resolve_rows(scan, reservoir, query, square);
    if (slot != from) merge_exact(best, reservoir, k, work);
  }
  const keys = best.keys();
  sort_keys(keys, best.exact);
  const worst: f32 = metric == SEARCH_SCAN_METRIC_L2 ? Infinity : -Infinity;
  const ids = params.ids + query * k * 4;
  const scores = params.scores + query * k * 4;
  for (let i: u32 = 0; i < k; i++) {
    const filled = i < best.exact;
    const key = filled ? load<u64>(keys + i * 8) : 0;
    store<i32>(ids + i * 4, filled ? <i32>key : -1);
    store<f32>(scores + i * 4, filled ? score_of_key(metric, key) : worst);
  }
  store<u32>(params.found + query * 4, best.exact);
}
