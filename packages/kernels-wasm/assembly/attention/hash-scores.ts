// attention/hash-scores: score_g = -min over the tokens of g of sum_h |hash(q_h) xor hash_t|.
//
// Hashes of the queries are made once a task; each cached word is loaded once and compared with those of all heads of its KV
// head. Counts are whole numbers: the bits are the same everywhere. A task is 4096 tokens (64 KiB at 128 bits). Bound by the
// counting, a popcnt a word and head.
import { ATTENTION_HASH_SCORES_PORT_LENGTHS, ATTENTION_HASH_SCORES_PORT_PAGE_TABLE, AttentionHashScoresParams } from "../gen/params";
import { align_line, fail, KernelPlan, Status } from "../lib/kernel";

const TASK_TOKENS: u32 = 4096;

export function attention_hash_scores_plan(params: AttentionHashScoresParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.batch > 0 ? 1 : 0;
  out.tasks0 = params.batch * params.kv_heads * blocks_of(params);
  out.scratch_bytes = <f64>(slots * slot_bytes(params));
}

export function attention_hash_scores_task(
  params: AttentionHashScoresParams,
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
  const granularity = params.granularity;
  const first = block * task_granules(params);
  const end = min<u32>(granules, first + task_granules(params));
  const scores = params.scores + <usize>(b * params.kv_heads + head) * granules * 4;
  for (let g = first; g < end; g++) store<f32>(scores + g * 4, -Infinity);
  const length = load<i32>(params.lengths + b * 4);
  if (length < 0 || <u32>length > params.max_pages * params.page_size) {
    fail(status, ATTENTION_HASH_SCORES_PORT_LENGTHS, b, length);
    return;
  }
  if (first * granularity >= <u32>length) return;
  const hashes = scratch + slot * <usize>slot_bytes(params);
  prepare(params, b, head, hashes);
  for (let g = first; g < end && g * granularity < <u32>length; g++) {
    const token = g * granularity;
    const entry = b * params.max_pages + token / params.page_size;
    const page = load<i32>(params.page_table + entry * 4);
    if (<u32>page >= params.pages) {
      fail(status, ATTENTION_HASH_SCORES_PORT_PAGE_TABLE, entry, page);
      continue;
    }
    const at = (<u32>page * params.kv_heads + head) * params.page_size + (token % params.page_size);
    const rows = params.hash_pages + <usize>at * (params.bits / 8);
    store<f32>(scores + g * 4, <f32>-nearest_distance(params, rows, min<u32>(granularity, <u32>length - token), hashes));
  }
}

function granules_of(params: AttentionHashScoresParams): u32 {
  return (params.max_pages * params.page_size) / params.granularity;
}
function task_granules(params: AttentionHashScoresParams): u32 {
  return max<u32>(1, TASK_TOKENS / params.granularity);
}
function blocks_of(params: AttentionHashScoresParams): u32 {
  return (granules_of(params) + task_granules(params) - 1) / task_granules(params);
}
function slot_bytes(params: AttentionHashScoresParams): u64 {
  return align_line((<u64>(params.query_heads / params.kv_heads) * params.bits) / 8);
}

/** Hashes of a KV head's queries: word by word, of all heads side by side. */
function prepare(params: AttentionHashScoresParams, b: u32, head: u32, hashes: usize): void {
  const group = params.query_heads / params.kv_heads;
  const queries = params.queries + <usize>(b * params.query_heads + head * group) * params.bits * 4;
  for (let w: u32 = 0; w < params.bits / 32; w++)
    for (let h: u32 = 0; h < group; h++) {
      const row = queries + (<usize>h * params.bits + w * 32) * 4;
      let word: u32 = 0;
      for (let i: u32 = 0; i < 32; i++) if (load<f32>(row + i * 4) < 0) word |= 1 << i;
      store<u32>(hashes + (w * group + h) * 4, word);
    }
}

/** The least distance of some tokens' hashes. */
function nearest_distance(params: AttentionHashScoresParams, rows: usize, tokens: u32, hashes: usize): i32 {
  const group = params.query_heads / params.kv_heads;
  const words = params.bits / 32;
  let best = <i32>(group * params.bits);
  for (let t: u32 = 0; t < tokens; t++) {
    let distance: i32 = 0;
    let hash = hashes;
    for (let w: u32 = 0; w < words; w++, rows += 4) {
      const key = load<u32>(rows);
      for (let h: u32 = 0; h < group; h++, hash += 4) distance += popcnt<u32>(key ^ load<u32>(hash));
    }
    best = min<i32>(best, distance);
  }
  return best;
}
