// The rows that may still be among a query's k best, with certified bounds.
//
// A scan gives each row an approximate score s with |s - true| <= e, in a space where larger is better. A row is
// kept while s + e >= threshold, where at least k rows are known to score at least the threshold. When the list
// is full, the threshold rises to the k-th best s - e and rows below it go; where that frees too little (ties,
// NaN, Inf), the rows are scored canonically and only the k best remain. So the k best by canonical score are
// always in the list, however the rows were ordered or split.
import { DTYPE_BF16, DTYPE_F16, DTYPE_F32, SEARCH_SCAN_METRIC_IP, SEARCH_SCAN_METRIC_L2, SearchScanParams } from "../gen/params";
import { canonical_score, key_of, score_of_key, widen_row } from "./scan-canonical";
import { QueryTerms, Scan } from "./scan-shape";

/** Header of a reservoir. Then keys u64 [k], scores f32 [capacity], errors f32 [capacity], rows u32 [capacity]. */
@unmanaged
export class Reservoir {
  threshold: f32;
  /** Rows with bounds only. */
  pending: u32;
  /** Rows with canonical keys, at most k. */
  exact: u32;
  padding: u32;

  clear(): void {
    this.threshold = -Infinity;
    this.pending = 0;
    this.exact = 0;
  }

  keys(): usize {
    return changetype<usize>(this) + 16;
  }
  scores(k: u32): usize {
    return changetype<usize>(this) + 16 + k * 8;
  }
}

export function reservoir_capacity(k: u32): u32 {
  return 2 * k + 64;
}

export function reservoir_bytes(k: u32): u32 {
  return (16 + k * 8 + reservoir_capacity(k) * 12 + 15) & ~15;
}

/** Adds a row whose bound passed. */
export function push_row(scan: Scan, reservoir: Reservoir, row: u32, score: f32, error: f32, query: u32, terms: QueryTerms): void {
  const k = scan.params.k;
  const line = capacity_bytes(k);
  const at = reservoir.scores(k) + reservoir.pending * 4;
  const certain = isFinite(score) && isFinite(error);
  store<f32>(at, certain ? score : 0);
  store<f32>(at + line, certain ? error : Infinity);
  store<u32>(at + 2 * line, row);
  if (++reservoir.pending < reservoir_capacity(k)) return;
  raise_threshold(reservoir, k, scan.work());
  if (reservoir.pending > reservoir_capacity(k) - k / 2 - 32) resolve_rows(scan, reservoir, query, terms.square);
}

/** Raises the threshold to the k-th best lower bound and drops what lies below it. */
export function raise_threshold(reservoir: Reservoir, k: u32, work: usize): void {
  const line = capacity_bytes(k);
  const scores = reservoir.scores(k);
  const pending = reservoir.pending;
  if (pending >= k) {
    for (let i: u32 = 0; i < pending; i++) {
      const at = scores + i * 4;
      store<u64>(work + i * 8, key_of(SEARCH_SCAN_METRIC_IP, load<f32>(at) - load<f32>(at + line), 0));
    }
    select_smallest(work, pending, k);
    const bound = score_of_key(SEARCH_SCAN_METRIC_IP, largest_key(work, k));
    if (bound > reservoir.threshold) reservoir.threshold = bound;
  }
  const threshold = reservoir.threshold;
  let to = scores;
  for (let from = scores, end = scores + pending * 4; from < end; from += 4) {
    const score = load<f32>(from);
    const error = load<f32>(from + line);
    if (score + error < threshold) continue;
    store<f32>(to, score);
    store<f32>(to + line, error);
    store<u32>(to + 2 * line, load<u32>(from + 2 * line));
    to += 4;
  }
  reservoir.pending = (to - scores) >> 2;
}

/** Scores the pending rows canonically; the k best of them and of the earlier ones remain. */
export function resolve_rows(scan: Scan, reservoir: Reservoir, query: u32, query_square: f64): void {
  const k = scan.params.k;
  const metric = scan.params.metric;
  const work = scan.work();
  const rows = reservoir.scores(k) + 2 * capacity_bytes(k);
  let n = reservoir.exact;
  copy_keys(work, reservoir.keys(), n);
  for (let i: u32 = 0; i < reservoir.pending; i++) {
    const row = load<u32>(rows + i * 4);
    const score = score_of_row(scan.params, row, query, query_square, scan.buffer());
    if (!isNaN(score)) store<u64>(work + n++ * 8, key_of(metric, score, row));
  }
  reservoir.pending = 0;
  reservoir.exact = min(n, k);
  select_smallest(work, n, reservoir.exact);
  copy_keys(reservoir.keys(), work, reservoir.exact);
  if (reservoir.exact < k) return;
  const bound = threshold_of(metric, score_of_key(metric, largest_key(work, k)), query_square);
  if (bound > reservoir.threshold) reservoir.threshold = bound;
}

/** Joins the exact rows of `other` with those of `best`. */
export function merge_exact(best: Reservoir, other: Reservoir, k: u32, work: usize): void {
  const n = best.exact + other.exact;
  copy_keys(work, best.keys(), best.exact);
  copy_keys(work + best.exact * 8, other.keys(), other.exact);
  best.exact = min(n, k);
  select_smallest(work, n, best.exact);
  copy_keys(best.keys(), work, best.exact);
}

/** Ascending (heapsort: no recursion, no worst case). */
export function sort_keys(keys: usize, n: u32): void {
  let root = n / 2;
  let end = n;
  while (end > 1) {
    let key: u64;
    if (root > 0) {
      key = load<u64>(keys + --root * 8);
    } else {
      key = load<u64>(keys + --end * 8);
      store<u64>(keys + end * 8, load<u64>(keys));
    }
    let at = root;
    for (let child: u32 = 2 * at + 1; child < end; child = 2 * at + 1) {
      if (child + 1 < end && load<u64>(keys + (child + 1) * 8) > load<u64>(keys + child * 8)) child++;
      if (load<u64>(keys + child * 8) <= key) break;
      store<u64>(keys + at * 8, load<u64>(keys + child * 8));
      at = child;
    }
    store<u64>(keys + at * 8, key);
  }
}

function capacity_bytes(k: u32): u32 {
  return reservoir_capacity(k) * 4;
}

function copy_keys(to: usize, from: usize, n: u32): void {
  for (let i: u32 = 0; i < n; i++) store<u64>(to + i * 8, load<u64>(from + i * 8));
}

function largest_key(keys: usize, n: u32): u64 {
  let largest: u64 = 0;
  for (let i: u32 = 0; i < n; i++) largest = max(largest, load<u64>(keys + i * 8));
  return largest;
}

/** The k smallest keys of `keys [n]` first, in any order (quickselect, median of three). */
function select_smallest(keys: usize, n: u32, k: u32): void {
  let low: i32 = 0;
  let high: i32 = n - 1;
  while (low < high) {
    const a = load<u64>(keys + low * 8);
    const b = load<u64>(keys + (low + (high - low) / 2) * 8);
    const c = load<u64>(keys + high * 8);
    const pivot = a < b ? (b < c ? b : max(a, c)) : a < c ? a : max(b, c);
    let i = low;
    let j = high;
    while (i <= j) {
      while (load<u64>(keys + i * 8) < pivot) i++;
      while (load<u64>(keys + j * 8) > pivot) j--;
      if (i > j) break;
      const swap = load<u64>(keys + i * 8);
      store<u64>(keys + i++ * 8, load<u64>(keys + j * 8));
      store<u64>(keys + j-- * 8, swap);
    }
    if (<i32>k - 1 <= j) high = j;
    else if (<i32>k - 1 >= i) low = i;
    else return;
  }
}

function score_of_row(params: SearchScanParams, row: u32, query: u32, query_square: f64, buffer: usize): f32 {
  const dim = params.dim;
  const dtype = params.rows_dtype;
  const at = row * params.rows_pitch;
  let scale: f64 = 1;
  let x: usize;
  if (dtype == DTYPE_F32) x = params.rows + at * 4;
  else if (dtype == DTYPE_F16) x = widen_row<u16>(params.rows + at * 2, dim, buffer);
  else if (dtype == DTYPE_BF16) x = widen_row<i16>(params.rows + at * 2, dim, buffer);
  else {
    x = widen_row<i8>(params.rows + at, dim, buffer);
    scale = load<f32>(params.row_scale + row * 4);
  }
  return canonical_score(params.metric, x, scale, params.queries + query * dim * 4, query_square, dim);
}

/**
 * A canonical score in the space of the approximate ones; under l2 that is (|q|^2 - distance) / 2, rounded down
 * by 2^-22 of its terms.
 */
function threshold_of(metric: u32, score: f32, query_square: f64): f32 {
  if (metric != SEARCH_SCAN_METRIC_L2) return score;
  const value = (query_square - score) / 2;
  return <f32>(value - (abs(value) + query_square) * 2.384185791015625e-7);
}
