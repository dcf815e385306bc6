// attention/index-scores: score_g = max over the tokens t of g of sum_j w_j relu(q_j . k_t).
//
// Queries lie in the scratch with zeros up to whole vectors, and heads up to whole fours. Two keys at a time are widened to
// floats, once for all heads, and meet four heads: 8 sums, 2 keys and a query of the 15 registers that V8 gives on x64. Heads
// are added in their order, token by token. A task is 256 tokens. Bound by the products.
import { ATTENTION_INDEX_SCORES_PORT_LENGTHS, ATTENTION_INDEX_SCORES_PORT_PAGE_TABLE, AttentionIndexScoresParams } from "../gen/params";
import { align_line, fail, KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";

const TASK_TOKENS: u32 = 256;
/** The dot products of two keys and four heads, two scores, before the queries and keys. */
const QUERIES_AT: usize = 64;

export function attention_index_scores_plan(params: AttentionIndexScoresParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.batch > 0 ? 1 : 0;
  out.tasks0 = params.batch * blocks_of(params);
  out.scratch_bytes = <f64>(slots * slot_bytes(params));
}

export function attention_index_scores_task(
  params: AttentionIndexScoresParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const blocks = blocks_of(params);
  const b = task / blocks;
  const granularity = params.granularity;
  const page_size = params.page_size;
  const first = (task % blocks) * task_granules(params);
  const end = min<u32>(granules_of(params), first + task_granules(params));
  const scores = params.scores + <usize>b * granules_of(params) * 4;
  for (let g = first; g < end; g++) store<f32>(scores + g * 4, -Infinity);
  const length = load<i32>(params.lengths + b * 4);
  if (length < 0 || <u32>length > params.max_pages * page_size) {
    fail(status, ATTENTION_INDEX_SCORES_PORT_LENGTHS, b, length);
    return;
  }
  if (first * granularity >= <u32>length) return;
  const own = scratch + slot * <usize>slot_bytes(params);
  const finite = prepare(params, b, own + QUERIES_AT);
  const stop = min<u32>(<u32>length, end * granularity);
  for (let t = first * granularity; t < stop; ) {
    const here = t - (t % page_size);
    const entry = b * params.max_pages + t / page_size;
    const page = load<i32>(params.page_table + entry * 4);
    const page_end = min<u32>(stop, here + page_size);
    if (<u32>page >= params.pages) {
      fail(status, ATTENTION_INDEX_SCORES_PORT_PAGE_TABLE, entry, page);
      t = page_end;
      continue;
    }
    for (; t < page_end; t += 2) {
      const tokens = min<u32>(2, page_end - t);
      score_tokens(params, b, <u32>page * page_size + (t - here), tokens, own);
      for (let i: u32 = 0; i < tokens; i++) {
        let one = load<f32>(own + 32 + i * 4);
        if (!finite || !(abs<f32>(one) <= f32.MAX_VALUE)) one = NaN;
        const at = scores + ((t + i) / granularity) * 4;
        // The maximum of wasm passes a NaN on.
        store<f32>(at, max<f32>(load<f32>(at), one));
      }
    }
    t = page_end;
  }
}

function granules_of(params: AttentionIndexScoresParams): u32 {
  return (params.max_pages * params.page_size) / params.granularity;
}
function task_granules(params: AttentionIndexScoresParams): u32 {
  return max<u32>(1, TASK_TOKENS / params.granularity);
}
function blocks_of(params: AttentionIndexScoresParams): u32 {
  return (granules_of(params) + task_granules(params) - 1) / task_granules(params);
}
/** Bytes of a query in whole vectors. */
function pitch_of(params: AttentionIndexScoresParams): usize {
  return ((params.index_dim + 3) & ~3) * 4;
}
function heads_of(params: AttentionIndexScoresParams): u32 {
  return (params.heads + 3) & ~3;
}
function slot_bytes(params: AttentionIndexScoresParams): u64 {
  return align_line(QUERIES_AT + <u64>(heads_of(params) + 2) * pitch_of(params));
}

/** Whether all queries and weights of a sequence are finite; the queries in whole vectors and fours. */
function prepare(params: AttentionIndexScoresParams, b: u32, queries: usize): bool {
  const pitch = pitch_of(params);
  const dim = params.index_dim;
  memory.fill(queries, 0, (heads_of(params) + 2) * pitch);
  let finite = true;
  for (let j: u32 = 0; j < params.heads; j++) {
    const query = params.queries + <usize>(b * params.heads + j) * dim * 4;
    memory.copy(queries + j * pitch, query, dim * 4);
    for (let i: usize = 0; i < dim * 4; i += 4) if (!(abs<f32>(load<f32>(query + i)) <= f32.MAX_VALUE)) finite = false;
    if (!(abs<f32>(load<f32>(params.weights + (b * params.heads + j) * 4)) <= f32.MAX_VALUE)) finite = false;
  }
  return finite;
}

/** The scores of one or two tokens from a slot on, at own + 32. */
function score_tokens(params: AttentionIndexScoresParams, b: u32, slot: u32, tokens: u32, own: usize): void {
  const pitch = pitch_of(params);
  const dim = params.index_dim;
  const queries = own + QUERIES_AT;
  const keys = queries + heads_of(params) * pitch;
  // The first one stands for the second where there is none.
  const other = slot + tokens - 1;
  for (let i: u32 = 0; i < dim; i++) {
    store<f32>(keys + i * 4, <f32>load<i8>(params.index_keys + <usize>slot * dim + i));
    store<f32>(keys + pitch + i * 4, <f32>load<i8>(params.index_keys + <usize>other * dim + i));
  }
  const scale0 = load<f32>(params.index_scale + slot * 4);
  const scale1 = load<f32>(params.index_scale + other * 4);
  let score0: f32 = abs<f32>(scale0) <= f32.MAX_VALUE ? 0 : NaN;
  let score1: f32 = abs<f32>(scale1) <= f32.MAX_VALUE ? 0 : NaN;
  const weights = params.weights + b * params.heads * 4;
  for (let j: u32 = 0; j < params.heads; j += 4) {
    four_heads(keys, queries + j * pitch, pitch, own);
    for (let h = j; h < min<u32>(j + 4, params.heads); h++) {
      const weight = load<f32>(weights + h * 4);
      score0 += weight * max<f32>(load<f32>(own + (h - j) * 4) * scale0, 0);
      score1 += weight * max<f32>(load<f32>(own + (h - j) * 4, 16) * scale1, 0);
    }
  }
  store<f32>(own, score0, 32);
  store<f32>(own, score1, 36);
}

/** Dot products [2][4] of two keys, one behind the other, and four queries. */
function four_heads(keys: usize, queries: usize, pitch: usize, dots: usize): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let b0 = a0;
  let b1 = a0;
  let c0 = a0;
  let c1 = a0;
  let d0 = a0;
  let d1 = a0;
  for (let i: usize = 0; i < pitch; i += 16) {
    const x = v128.load(keys + i);
    const y = v128.load(keys + pitch + i);
    let query = v128.load(queries + i);
    a0 = simd.madd(x, query, a0);
    a1 = simd.madd(y, query, a1);
    query = v128.load(queries + pitch + i);
    b0 = simd.madd(x, query, b0);
    b1 = simd.madd(y, query, b1);
    query = v128.load(queries + 2 * pitch + i);
    c0 = simd.madd(x, query, c0);
    c1 = simd.madd(y, query, c1);
    query = v128.load(queries + 3 * pitch + i);
    d0 = simd.madd(x, query, d0);
    d1 = simd.madd(y, query, d1);
  }
  v128.store(dots, simd.sum4(a0, b0, c0, d0));
  v128.store(dots, simd.sum4(a1, b1, c1, d1), 16);
}
