// kv-cache/append: row [token, head] of keys and values goes to [page, head, place], in the cache's dtype.
//
// Phase 0, one task: each slot is read once, compared, and looked for in a hash table, so that a repeated one is a
// fault; what is left is written to scratch. Phase 1: tasks of 128 KiB of new rows (about 30 us of copying). f16 and
// bf16 round to nearest even by integer arithmetic; i8 divides in f64, as the reference does. Bound by memory in f32.
import { DTYPE_F16, DTYPE_F32, DTYPE_I8, KV_CACHE_APPEND_PORT_SLOTS, KvCacheAppendParams } from "../gen/params";
import { fail, KernelPlan, Status } from "../lib/kernel";

const TASK_FLOATS: u64 = 32 << 10;

export function kv_cache_append_plan(params: KvCacheAppendParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.tokens > 0 ? 2 : 0;
  out.tasks0 = 1;
  const each = task_tokens(params);
  out.tasks1 = <u32>((<u64>params.tokens + each - 1) / each);
  out.scratch_bytes = 4 * (<f64>params.tokens + <f64>table_entries(params.tokens));
}

export function kv_cache_append_task(
  params: KvCacheAppendParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  if (phase == 0) {
    find_targets(params, scratch, status);
    return;
  }
  const each = task_tokens(params);
  const end = <u32>min<u64>(params.tokens, (<u64>task + 1) * each);
  const heads = params.kv_heads;
  const page_size = params.page_size;
  for (let t = <u32>(<u64>task * each); t < end; t++) {
    const target = load<i32>(scratch + t * 4);
    if (target < 0) continue;
    for (let head: u32 = 0; head < heads; head++) {
      const from = t * heads + head;
      const to = ((<u32>target / page_size) * heads + head) * page_size + (<u32>target % page_size);
      const dtype = params.key_pages_dtype;
      const key_bytes: usize = params.head_dim * 4;
      const value_bytes: usize = params.value_dim * 4;
      store_row(params.keys + from * key_bytes, params.head_dim, params.key_pages, params.key_scale, to, dtype);
      store_row(params.values + from * value_bytes, params.value_dim, params.value_pages, params.value_scale, to, dtype);
    }
  }
}

function task_tokens(params: KvCacheAppendParams): u64 {
  return max<u64>(1, TASK_FLOATS / (<u64>params.kv_heads * (<u64>params.head_dim + params.value_dim)));
}

/** A power of two, so that the table is at half load or less. */
function table_entries(tokens: u32): u64 {
  let entries: u64 = 8;
  while (entries < 2 * <u64>tokens) entries *= 2;
  return entries;
}

function find_targets(params: KvCacheAppendParams, scratch: usize, status: Status): void {
  const tokens = params.tokens;
  const table = scratch + tokens * 4;
  const entries = <u32>table_entries(tokens);
  memory.fill(table, 0xff, entries * 4);
  const limit = <u64>params.pages * params.page_size;
  for (let t: u32 = 0; t < tokens; t++) {
    const slot = load<i32>(params.slots + t * 4);
    store<i32>(scratch + t * 4, -1);
    if (slot == -1) continue;
    let sound = slot >= 0 && <u64>slot < limit;
    if (sound) {
      let at = (<u32>slot * 0x9e3779b1) & (entries - 1);
      let entry = load<i32>(table + at * 4);
      while (entry != -1 && entry != slot) {
        at = (at + 1) & (entries - 1);
        entry = load<i32>(table + at * 4);
      }
      sound = entry == -1;
      store<i32>(table + at * 4, slot);
    }
    if (sound) store<i32>(scratch + t * 4, slot);
    else fail(status, KV_CACHE_APPEND_PORT_SLOTS, t, slot);
  }
}

function store_row(row: usize, dim: u32, rows: usize, scale: usize, at: u32, dtype: u32): void {
  if (dtype == DTYPE_F32) {
    memory.copy(rows + <usize>at * dim * 4, row, dim * 4);
    return;
  }
  if (dtype == DTYPE_I8) {
    quantise(row, dim, rows + <usize>at * dim, scale + at * 4);
    return;
  }
  const out = rows + <usize>at * dim * 2;
  if (dtype == DTYPE_F16) for (let i: u32 = 0; i < dim; i++) store<u16>(out + i * 2, <u16>f16_of(load<f32>(row + i * 4)));
  else for (let i: u32 = 0; i < dim; i++) store<u16>(out + i * 2, <u16>bf16_of(load<u32>(row + i * 4)));
}

function f16_of(x: f32): u32 {
  const bits = reinterpret<u32>(x);
  const sign = (bits >> 16) & 0x8000;
  const m = bits & 0x7fffffff;
  if (m > 0x7f800000) return 0x7e00;
  if (m >= 0x477ff000) return sign | 0x7c00;
  // Below 2^-14 the spacing is 2^-24, which is that of floats at 0.5.
  if (m < 0x38800000) return sign | (reinterpret<u32>(abs<f32>(x) + 0.5) - 0x3f000000);
  const rebased = m - 0x38000000;
  return sign | ((rebased + 0xfff + ((rebased >> 13) & 1)) >> 13);
}

function bf16_of(bits: u32): u32 {
  return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

function quantise(row: usize, dim: u32, out: usize, scale: usize): void {
  let largest: f32 = 0;
  let nan = false;
  for (let i: u32 = 0; i < dim; i++) {
    const x = load<f32>(row + i * 4);
    if (isNaN<f32>(x)) nan = true;
    const size = abs<f32>(x);
    if (size > largest) largest = size;
  }
  const step = <f32>(<f64>largest / 127);
  if (nan) store<u32>(scale, 0x7fc00000);
  else store<f32>(scale, step);
  if (nan || !(step > 0) || step == Infinity) {
    memory.fill(out, 0, dim);
    return;
  }
  for (let i: u32 = 0; i < dim; i++) {
    const whole = nearest<f64>(<f64>load<f32>(row + i * 4) / <f64>step);
    store<i8>(out + i, <i8>max<f64>(-127, min<f64>(127, whole)));
  }
}
