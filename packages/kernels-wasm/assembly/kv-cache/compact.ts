// kv-cache/compact: token kept[i] of a head becomes its token i, in place, for ascending i.
//
// A task is one head of one sequence. All that it names is compared before a row moves, so a fault leaves the head as
// it is; numbers are compared again where they are used, as another thread may write them. kept[i] >= i, so rows moved
// in order are read before they are overwritten. Copies only: bound by memory.
import {
  DTYPE_F32,
  DTYPE_I8,
  KV_CACHE_COMPACT_PORT_KEPT,
  KV_CACHE_COMPACT_PORT_KEPT_COUNT,
  KV_CACHE_COMPACT_PORT_LENGTHS,
  KV_CACHE_COMPACT_PORT_PAGE_TABLE,
  KvCacheCompactParams,
} from "../gen/params";
import { fail, KernelPlan, Status } from "../lib/kernel";

export function kv_cache_compact_plan(params: KvCacheCompactParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.tasks0 = params.batch * params.kv_heads;
  out.phases = out.tasks0 > 0 ? 1 : 0;
  out.scratch_bytes = 0;
}

export function kv_cache_compact_task(
  params: KvCacheCompactParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  if (pass(params, task, false, status)) pass(params, task, true, status);
}

/** Compares everything; with `moves`, also copies the rows. */
function pass(params: KvCacheCompactParams, list: u32, moves: bool, status: Status): bool {
  const b = list / params.kv_heads;
  const length = load<i32>(params.lengths + b * 4);
  if (length < 0 || <u64>length > <u64>params.max_pages * params.page_size) {
    fail(status, KV_CACHE_COMPACT_PORT_LENGTHS, b, length);
    return false;
  }
  const count = load<i32>(params.kept_count + list * 4);
  if (count < 0 || <u32>count > params.max_kept) {
    fail(status, KV_CACHE_COMPACT_PORT_KEPT_COUNT, list, count);
    return false;
  }
  let before: i32 = -1;
  for (let i: i32 = 0; i < count; i++) {
    const at = list * params.max_kept + i;
    const token = load<i32>(params.kept + at * 4);
    if (token <= before || token >= length) {
      fail(status, KV_CACHE_COMPACT_PORT_KEPT, at, token);
      return false;
    }
    before = token;
    const to = row_of(params, list, i, status);
    const from = to < 0 ? -1 : row_of(params, list, token, status);
    if (from < 0) return false;
    if (moves && from != to) move(params, <u32>to, <u32>from);
  }
  return true;
}

/** The row of a token in pages, or -1 where its page does not exist. */
function row_of(params: KvCacheCompactParams, list: u32, token: u32, status: Status): i64 {
  const heads = params.kv_heads;
  const entry = (list / heads) * params.max_pages + token / params.page_size;
  const page = load<i32>(params.page_table + entry * 4);
  if (page >= 0 && <u32>page < params.pages) return (<i64>page * heads + (list % heads)) * params.page_size + (token % params.page_size);
  fail(status, KV_CACHE_COMPACT_PORT_PAGE_TABLE, entry, page);
  return -1;
}

function move(params: KvCacheCompactParams, to: u32, from: u32): void {
  const dtype = params.key_pages_dtype;
  const each: usize = dtype == DTYPE_F32 ? 4 : dtype == DTYPE_I8 ? 1 : 2;
  copy(params.key_pages, to, from, each * params.head_dim);
  copy(params.value_pages, to, from, each * params.value_dim);
  if (dtype != DTYPE_I8) return;
  copy(params.key_scale, to, from, 4);
  copy(params.value_scale, to, from, 4);
}

function copy(rows: usize, to: usize, from: usize, bytes: usize): void {
  memory.copy(rows + to * bytes, rows + from * bytes, bytes);
}
