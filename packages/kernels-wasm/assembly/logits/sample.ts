// logits/sample: a token from softmax(logits / temperature), cut by top-k, top-p and min-p, drawn by (seed, position).
//
// A row is a task: the largest logit, then weights in f64 by a fixed series, then, where top-k or top-p cut, a heap of
// (logit, lower id) that gives up the best one by one, as many as are kept; sums run by id. Scalar and in f64, as all host
// backends owe the same bits. Bound by the exponentials.
import { LogitsSampleParams } from "../gen/params";
import { wide } from "../lib/f64";
import { align_line, KernelPlan, Status } from "../lib/kernel";
import { uniform_at } from "./canonical";

const CONTEXT_BYTES: u32 = 64;

@unmanaged
class Row {
  logits: usize;
  /** [vocab] f64, and ids [vocab] u32. */
  weights: usize;
  heap: usize;
  n: u32;

  logit(id: u32): f32 {
    return load<f32>(this.logits + id * 4);
  }
  weight(id: u32): f64 {
    return load<f64>(this.weights + id * 8);
  }
  id(at: u32): u32 {
    return load<u32>(this.heap + at * 4);
  }
  /** Does a come before b? */
  before(a: u32, b: u32): bool {
    const x = this.logit(a);
    const y = this.logit(b);
    return x > y || (x == y && a < b);
  }
  sink(at: u32): void {
    const id = this.id(at);
    for (let child: u32 = 2 * at + 1; child < this.n; child = 2 * at + 1) {
      if (child + 1 < this.n && this.before(this.id(child + 1), this.id(child))) child++;
      if (!this.before(this.id(child), id)) break;
      store<u32>(this.heap + at * 4, this.id(child));
      at = child;
    }
    store<u32>(this.heap + at * 4, id);
  }
  build(): void {
    for (let i = <i32>(this.n >> 1) - 1; i >= 0; i--) this.sink(i);
  }
  /** The best that is left; those taken lie behind the heap, the latest first. */
  take(): u32 {
    const best = this.id(0);
    this.n--;
    store<u32>(this.heap, this.id(this.n));
    store<u32>(this.heap + this.n * 4, best);
    if (this.n > 0) this.sink(0);
    return best;
  }
  kept(id: u32, cut: bool, last: u32): bool {
    return this.weight(id) > 0 && (!cut || !this.before(last, id));
  }
}

export function logits_sample_plan(params: LogitsSampleParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.rows > 0 ? 1 : 0;
  out.tasks0 = params.rows;
  out.scratch_bytes = <f64>slots * <f64>slot_bytes(params);
}

export function logits_sample_task(
  params: LogitsSampleParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const own = scratch + slot * <usize>slot_bytes(params);
  const row = changetype<Row>(own);
  row.logits = params.logits + task * params.vocab * 4;
  row.weights = own + CONTEXT_BYTES;
  row.heap = row.weights + params.vocab * 8;
  row.n = 0;
  draw(params, task, row);
}

/** A row's context, its weights in f64, a heap of ids. */
function slot_bytes(params: LogitsSampleParams): u64 {
  return align_line(CONTEXT_BYTES + <u64>params.vocab * 12);
}

function draw(params: LogitsSampleParams, index: u32, row: Row): void {
  const vocab = params.vocab;
  const ids = params.ids + index * 4;
  let largest: f32 = -Infinity;
  let first: i32 = -1;
  for (let i: u32 = 0; i < vocab; i++) {
    if (row.logit(i) > largest) {
      largest = row.logit(i);
      first = i;
    }
  }
  store<i32>(ids, first);
  store<u32>(params.kept + index * 4, first >= 0 ? 1 : 0);
  if (first < 0 || params.temperature == 0) return;
  for (let i: u32 = 0; i < vocab; i++) {
    const logit = row.logit(i);
    const weight: f64 = logit == largest ? 1 : wide.exp((<f64>logit - <f64>largest) / <f64>params.temperature);
    store<f64>(row.weights + i * 8, weight);
    if (weight > 0) store<u32>(row.heap + row.n++ * 4, i);
  }
  // Tokens behind `last`, by rank, are cut off.
  const all = row.n;
  const best = params.top_k == 0 ? all : min(all, params.top_k);
  let cut = best < all;
  let last: u32 = 0;
  if (cut || params.top_p < 1) row.build();
  if (cut) for (let i: u32 = 0; i < best; i++) last = row.take();
  if (params.top_p < 1) {
    let total: f64 = 0;
    let mass: f64 = 0;
    for (let i: u32 = 0; i < vocab; i++) if (row.kept(i, cut, last)) total += row.weight(i);
    const wanted = <f64>params.top_p * total;
    for (let i: u32 = 0; i < best && (i == 0 || mass < wanted); i++) {
      last = all - row.n > i ? row.id(all - 1 - i) : row.take();
      mass += row.weight(last);
    }
    cut = true;
  }
  let total: f64 = 0;
  let count: u32 = 0;
  for (let i: u32 = 0; i < vocab; i++) {
    if (row.kept(i, cut, last) && row.weight(i) >= <f64>params.min_p) {
      total += row.weight(i);
      count++;
    } else store<f64>(row.weights + i * 8, 0);
  }
  const target = uniform_at(load<u32>(params.seeds + index * 4), load<u32>(params.positions + index * 4)) * total;
  let passed: f64 = 0;
  for (let i: u32 = 0; i < vocab; i++) {
    const weight = row.weight(i);
    if (weight == 0) continue;
    passed += weight;
    store<i32>(ids, i);
    if (passed > target) break;
  }
  store<u32>(params.kept + index * 4, count);
}
