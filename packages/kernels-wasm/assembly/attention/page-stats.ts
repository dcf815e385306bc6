// attention/page-stats: mean and deviation, or least and largest, of each component over the tokens of a granule.
//
// Only granules that reach beyond `from` are made, each from all its keys: no state but the result, so its bits do not
// depend on how tokens came. Components go four at a time down the tokens of a granule, the deviation in a second pass about
// the mean: f32 does not cancel there. What is not finite is gathered as x * 0 on the way. A task is an eighth of what a KV
// head has to make; the keys' bandwidth bounds it.
import {
  ATTENTION_PAGE_STATS_PORT_FROM,
  ATTENTION_PAGE_STATS_PORT_LENGTHS,
  ATTENTION_PAGE_STATS_PORT_PAGE_TABLE,
  ATTENTION_PAGE_STATS_STATISTICS_MINMAX,
  AttentionPageStatsParams,
  DTYPE_BF16,
  DTYPE_F16,
  DTYPE_F32,
} from "../gen/params";
import { fail, KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";

const PARTS: u32 = 8;
/** For keys of less than a vector. */
const SLOT_BYTES: usize = 64;

export function attention_page_stats_plan(params: AttentionPageStatsParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.batch > 0 ? 1 : 0;
  out.tasks0 = params.batch * params.kv_heads * parts_of(params);
  out.scratch_bytes = <f64>(slots * SLOT_BYTES);
}

export function attention_page_stats_task(
  params: AttentionPageStatsParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const parts = parts_of(params);
  const part = task % parts;
  const head = (task / parts) % params.kv_heads;
  const b = task / parts / params.kv_heads;
  const most = params.max_pages * params.page_size;
  const length = load<i32>(params.lengths + b * 4);
  const from = load<i32>(params.from + b * 4);
  if (length < 0 || <u32>length > most) fail(status, ATTENTION_PAGE_STATS_PORT_LENGTHS, b, length);
  if (from < 0 || <u32>from > most) fail(status, ATTENTION_PAGE_STATS_PORT_FROM, b, from);
  if (length < 0 || <u32>length > most || from < 0 || <u32>from > most) return;
  const granularity = params.granularity;
  const begin = <u32>from / granularity;
  const all = <u32>((<u64>length + granularity - 1) / granularity);
  const count = <u64>(all > begin ? all - begin : 0);
  const end = begin + <u32>((count * (part + 1)) / parts);
  for (let g = begin + <u32>((count * part) / parts); g < end; g++) {
    const token = g * granularity;
    const entry = b * params.max_pages + token / params.page_size;
    const page = load<i32>(params.page_table + entry * 4);
    if (<u32>page >= params.pages) {
      fail(status, ATTENTION_PAGE_STATS_PORT_PAGE_TABLE, entry, page);
      continue;
    }
    const at = (<u32>page * params.kv_heads + head) * params.page_size + (token % params.page_size);
    const held = min<u32>(granularity, <u32>length - token);
    const buffer = scratch + slot * SLOT_BYTES;
    if (params.key_pages_dtype == DTYPE_F32) describe<f32>(params, at, held, buffer);
    else if (params.key_pages_dtype == DTYPE_F16) describe<u16>(params, at, held, buffer);
    else if (params.key_pages_dtype == DTYPE_BF16) describe<i16>(params, at, held, buffer);
    else describe<i8>(params, at, held, buffer);
  }
}

function parts_of(params: AttentionPageStatsParams): u32 {
  return max<u32>(1, min<u32>(PARTS, (params.max_pages * params.page_size) / params.granularity / 16));
}

function describe<T>(params: AttentionPageStatsParams, slot: u32, count: u32, buffer: usize): void {
  const dim = params.head_dim;
  const rows = params.key_pages + <usize>slot * dim * sizeof<T>();
  const scale: usize = sizeof<T>() == 1 ? params.key_scale + slot * 4 : 0;
  const out = params.page_stats + <usize>(slot / params.granularity) * 2 * dim * 4;
  const minmax = params.statistics == ATTENTION_PAGE_STATS_STATISTICS_MINMAX;
  const zero = f32x4.splat(0);
  const share = f32x4.splat(1 / <f32>count);
  for (let at: u32 = 0; at < dim; at += 4) {
    // The last vector ends with the row, over some of the one before.
    const i = dim < 4 ? 0 : min<u32>(at, dim - 4);
    let first = key_at<T>(rows, scale, 0, i, dim, buffer);
    let second = first;
    let bad = f32x4.mul(first, zero);
    for (let t: u32 = 1; t < count; t++) {
      const x = key_at<T>(rows, scale, t, i, dim, buffer);
      bad = simd.madd(x, zero, bad);
      if (minmax) {
        first = f32x4.pmin(first, x);
        second = f32x4.pmax(second, x);
      } else first = f32x4.add(first, x);
    }
    if (!minmax) {
      first = f32x4.mul(first, share);
      second = zero;
      for (let t: u32 = 0; t < count; t++) {
        const apart = f32x4.sub(key_at<T>(rows, scale, t, i, dim, buffer), first);
        second = simd.madd(apart, apart, second);
      }
      second = f32x4.sqrt(f32x4.mul(second, share));
    }
    put(out + i * 4, f32x4.add(first, bad), dim, buffer);
    put(out + (dim + i) * 4, f32x4.add(second, bad), dim, buffer);
  }
}

/** Four components of token t from i on; zeros behind shorter keys. */
function key_at<T>(rows: usize, scale: usize, t: u32, i: u32, dim: u32, buffer: usize): v128 {
  let row = rows + (<usize>t * dim + i) * sizeof<T>();
  if (dim < 4) {
    v128.store(buffer, f32x4.splat(0));
    memory.copy(buffer, row, dim * sizeof<T>());
    row = buffer;
  }
  const x = simd.load<T>(row);
  return scale ? f32x4.mul(x, v128.load32_splat(scale + t * 4)) : x;
}

function put(to: usize, x: v128, dim: u32, buffer: usize): void {
  if (dim >= 4) {
    v128.store(to, x);
    return;
  }
  v128.store(buffer, x);
  memory.copy(to, buffer, dim * 4);
}
