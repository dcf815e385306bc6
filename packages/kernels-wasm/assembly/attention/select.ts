// attention/select: the granules that score best, as ascending lists; first and last ones forced.
//
// Scores become unsigned keys of the same order (0 for a NaN), once a list. A radix select of four 8-bit digits finds the
// key of the last granule that is listed and how many of its equals are; a last pass lists in order. No sorting, no
// arithmetic but the sums of pooled heads: bits are the same everywhere. Bound by the latency of the histograms.
import { ATTENTION_SELECT_PORT_LENGTHS, AttentionSelectParams } from "../gen/params";
import { align_line, fail, KernelPlan, Status } from "../lib/kernel";

/** Keys of a list, behind the histogram and the place of the result. */
const HISTOGRAM: usize = 1024;
const KEYS_AT: usize = 1088;

export function attention_select_plan(params: AttentionSelectParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.batch > 0 ? 1 : 0;
  out.tasks0 = params.batch * params.lists;
  out.scratch_bytes = <f64>(slots * slot_bytes(params));
}

export function attention_select_task(
  params: AttentionSelectParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  list_granules(params, task, scratch + slot * <usize>slot_bytes(params), status);
}

function slot_bytes(params: AttentionSelectParams): u64 {
  return align_line(KEYS_AT + 4 * <u64>params.granules);
}

function list_granules(params: AttentionSelectParams, row: u32, own: usize, status: Status): void {
  const b = row / params.lists;
  const out = params.selected + row * params.k * 4;
  const length = load<i32>(params.lengths + b * 4);
  let at = out;
  if (length < 0 || <u32>length > params.granules * params.granularity) {
    fail(status, ATTENTION_SELECT_PORT_LENGTHS, b, length);
  } else {
    const tokens = <u32>length;
    const all = (tokens + params.granularity - 1) / params.granularity;
    const total = min(params.budget ? min(params.budget, params.k) : params.k, all);
    const last = params.recent ? min(total, all - (tokens - min(params.recent, tokens)) / params.granularity) : 0;
    const first = min(total - last, (min(params.sink, tokens) + params.granularity - 1) / params.granularity);
    const end = all - last;
    const wanted = total - first - last;
    for (let i: u32 = 0; i < first; i++, at += 4) store<u32>(at, i);
    if (wanted > 0) {
      make_keys(params, b, row % params.lists, first, end, own + KEYS_AT);
      at = list_best(own, first, end, wanted, at);
    }
    for (let i = end; i < all; i++, at += 4) store<u32>(at, i);
  }
  store<u32>(params.counts + row * 4, <u32>(at - out) >> 2);
  for (const stop = out + params.k * 4; at < stop; at += 4) store<i32>(at, -1);
}

/** The `wanted` best of granules first..end, ascending, from `at` on. Returns the end. */
function list_best(own: usize, first: u32, end: u32, wanted: u32, at: usize): usize {
  const keys = own + KEYS_AT;
  let prefix: u32 = 0;
  let mask: u32 = 0;
  for (let shift: i32 = 24; shift >= 0; shift -= 8) {
    memory.fill(own, 0, HISTOGRAM);
    for (let i = first; i < end; i++) {
      const key = load<u32>(keys + i * 4);
      if ((key & mask) != prefix) continue;
      const count = own + ((key >> shift) & 255) * 4;
      store<u32>(count, load<u32>(count) + 1);
    }
    let digit: u32 = 255;
    for (; load<u32>(own + digit * 4) < wanted; digit--) wanted -= load<u32>(own + digit * 4);
    prefix |= digit << shift;
    mask |= 255 << shift;
  }
  // So many keys like the last one are listed: the first ones.
  let equals = wanted;
  for (let i = first; i < end; i++) {
    const key = load<u32>(keys + i * 4);
    if (key < prefix) continue;
    if (key == prefix) {
      if (equals == 0) continue;
      equals--;
    }
    store<u32>(at, i);
    at += 4;
  }
  return at;
}

/** Keys of granules first..end for a list: of its head, or of the sum over the heads. */
function make_keys(params: AttentionSelectParams, b: u32, list: u32, first: u32, end: u32, keys: usize): void {
  const pooled = params.lists < params.heads;
  const row: usize = params.granules * 4;
  const scores = params.scores + (b * params.heads + list) * row;
  for (let i = first; i < end; i++) {
    let score = load<f32>(scores + i * 4);
    if (pooled) for (let h: u32 = 1; h < params.heads; h++) score += load<f32>(scores + h * row + i * 4);
    store<u32>(keys + i * 4, key_of(score));
  }
}

function key_of(score: f32): u32 {
  if (isNaN(score)) return 0;
  // -0 equals 0.
  const bits = reinterpret<u32>(score + 0);
  return bits >> 31 ? ~bits : bits | 0x80000000;
}
