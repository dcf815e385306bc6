// attention/page-scores: sum_i q_i mean_i + spread |q_i| deviation_i, or sum_i min(q_i, 0) least_i + max(q_i, 0) largest_i.
//
// Either is one dot product of a granule's statistics with a vector that the query gives: [q, spread |q|] or [min(q, 0),
// max(q, 0)]. Heads pooled by their sum share the sum of their vectors, so a group costs one product; pooled by the largest,
// each has its own, while four rows are in the nearest cache. A task is 64 granules (64 KiB at 128 components). Bound by
// bandwidth: 2 headDim floats a granule and KV head.
import {
  ATTENTION_PAGE_SCORES_POOL_MAX,
  ATTENTION_PAGE_SCORES_PORT_LENGTHS,
  ATTENTION_PAGE_SCORES_PORT_PAGE_TABLE,
  ATTENTION_PAGE_SCORES_STATISTICS_MINMAX,
  AttentionPageScoresParams,
} from "../gen/params";
import { align_line, fail, KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";

const TASK_GRANULES: u32 = 64;
/** Of a slot: the rows of a task and some behind them, the places of their scores, then the vectors. */
const PLACES_AT: usize = (TASK_GRANULES + 4) * 4;
const VECTORS_AT: usize = PLACES_AT + TASK_GRANULES * 4;

export function attention_page_scores_plan(params: AttentionPageScoresParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.batch > 0 ? 1 : 0;
  out.tasks0 = params.batch * params.kv_heads * blocks_of(params);
  out.scratch_bytes = <f64>(slots * slot_bytes(params));
}

export function attention_page_scores_task(
  params: AttentionPageScoresParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const blocks = blocks_of(params);
  const block = task % blocks;
  const head = (task / blocks) % params.kv_heads;
  const b = task / blocks / params.kv_heads;
  const granules = granules_of(params);
  const per_page = params.page_size / params.granularity;
  const first = block * TASK_GRANULES;
  const end = min<u32>(granules, first + TASK_GRANULES);
  const scores = params.scores + (<usize>(b * params.kv_heads + head) * granules + first) * 4;
  for (let at = scores, stop = scores + (end - first) * 4; at < stop; at += 4) store<f32>(at, -Infinity);
  const length = load<i32>(params.lengths + b * 4);
  if (length < 0 || <u32>length > params.max_pages * params.page_size) {
    fail(status, ATTENTION_PAGE_SCORES_PORT_LENGTHS, b, length);
    return;
  }
  const own = scratch + slot * <usize>slot_bytes(params);
  const row_bytes: usize = 2 * params.head_dim * 4;
  let count: u32 = 0;
  for (let g = first; g < end && g * params.granularity < <u32>length; g++) {
    const entry = b * params.max_pages + g / per_page;
    const page = load<i32>(params.page_table + entry * 4);
    if (<u32>page >= params.pages) {
      fail(status, ATTENTION_PAGE_SCORES_PORT_PAGE_TABLE, entry, page);
      continue;
    }
    store<usize>(own + count * 4, params.page_stats + ((<u32>page * params.kv_heads + head) * per_page + (g % per_page)) * row_bytes);
    store<usize>(own + PLACES_AT + count * 4, scores + (g - first) * 4);
    count++;
  }
  if (count == 0) return;
  // Whole groups of four are computed.
  for (let i: u32 = 0; i < 4; i++) store<usize>(own + (count + i) * 4, load<usize>(own + (count - 1) * 4));
  prepare(params, b, head, own + VECTORS_AT);
  for (let r: u32 = 0; r < count; r += 4) score_rows(params, own + r * 4, min<u32>(4, count - r), own + VECTORS_AT);
}

function granules_of(params: AttentionPageScoresParams): u32 {
  return (params.max_pages * params.page_size) / params.granularity;
}
function blocks_of(params: AttentionPageScoresParams): u32 {
  return (granules_of(params) + TASK_GRANULES - 1) / TASK_GRANULES;
}
/** How many vectors the heads of a KV head have. */
function vectors_of(params: AttentionPageScoresParams): u32 {
  return params.pool == ATTENTION_PAGE_SCORES_POOL_MAX ? params.query_heads / params.kv_heads : 1;
}
function slot_bytes(params: AttentionPageScoresParams): u64 {
  return align_line(VECTORS_AT + <u64>vectors_of(params) * params.head_dim * 8);
}

function prepare(params: AttentionPageScoresParams, b: u32, head: u32, vectors: usize): void {
  const dim = params.head_dim;
  const group = params.query_heads / params.kv_heads;
  const each: usize = vectors_of(params) > 1 ? dim * 8 : 0;
  const minmax = params.statistics == ATTENTION_PAGE_SCORES_STATISTICS_MINMAX;
  memory.fill(vectors, 0, vectors_of(params) * dim * 8);
  for (let h: u32 = 0; h < group; h++) {
    const query = params.queries + <usize>(b * params.query_heads + head * group + h) * dim * 4;
    const first = vectors + h * each;
    const second = first + dim * 4;
    for (let i: usize = 0; i < dim * 4; i += 4) {
      const q = load<f32>(query + i);
      // min and max pass a NaN on.
      store<f32>(first + i, load<f32>(first + i) + (minmax ? min<f32>(q, 0) : q));
      store<f32>(second + i, load<f32>(second + i) + (minmax ? max<f32>(q, 0) : params.spread * abs<f32>(q)));
    }
  }
}

/** Four rows, given the addresses of the rows and, behind these, of the scores. */
function score_rows(params: AttentionPageScoresParams, rows: usize, count: u32, vectors: usize): void {
  const bytes: usize = 2 * params.head_dim * 4;
  const heads = vectors_of(params);
  const whole = bytes & ~15;
  const row0 = load<usize>(rows);
  const row1 = load<usize>(rows, 4);
  const row2 = load<usize>(rows, 8);
  const row3 = load<usize>(rows, 12);
  let pooled = f32x4.splat(0);
  for (let h: u32 = 0; h < heads; h++, vectors += bytes) {
    let a = f32x4.splat(0);
    let b = a;
    let c = a;
    let d = a;
    for (let i: usize = 0; i < whole; i += 16) {
      const query = v128.load(vectors + i);
      a = simd.madd(query, v128.load(row0 + i), a);
      b = simd.madd(query, v128.load(row1 + i), b);
      c = simd.madd(query, v128.load(row2 + i), c);
      d = simd.madd(query, v128.load(row3 + i), d);
    }
    if (whole < bytes) {
      // Rows have an even number of floats.
      const query = v128.load64_zero(vectors + whole);
      a = simd.madd(query, v128.load64_zero(row0 + whole), a);
      b = simd.madd(query, v128.load64_zero(row1 + whole), b);
      c = simd.madd(query, v128.load64_zero(row2 + whole), c);
      d = simd.madd(query, v128.load64_zero(row3 + whole), d);
    }
    let sums = simd.sum4(a, b, c, d);
    const finite = f32x4.le(f32x4.abs(sums), f32x4.splat(f32.MAX_VALUE));
    sums = v128.bitselect(sums, f32x4.splat(NaN), finite);
    // The maximum of wasm passes a NaN on.
    pooled = h == 0 ? sums : f32x4.max(pooled, sums);
  }
  const places = rows + PLACES_AT;
  store<f32>(load<usize>(places), f32x4.extract_lane(pooled, 0));
  if (count > 1) store<f32>(load<usize>(places, 4), f32x4.extract_lane(pooled, 1));
  if (count > 2) store<f32>(load<usize>(places, 8), f32x4.extract_lane(pooled, 2));
  if (count > 3) store<f32>(load<usize>(places, 12), f32x4.extract_lane(pooled, 3));
}
