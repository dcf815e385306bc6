// attention/merge: out = sum_p exp(lse_p - lse) out_p, lse = ln sum_p exp(lse_p), row by row.
//
// The largest lse is taken out first; weights and sums are f32, the logarithm f64. Parts are added in their order, so
// the bits do not depend on the threads. A task is 256 KiB of parts: 20 us of one core's bandwidth, which bounds it.
import { AttentionMergeParams } from "../gen/params";
import { math } from "../lib/exp";
import { KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";

const TASK_FLOATS: u64 = 64 << 10;

export function attention_merge_plan(params: AttentionMergeParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.rows > 0 ? 1 : 0;
  const each = task_rows(params);
  out.tasks0 = <u32>((<u64>params.rows + each - 1) / each);
  out.scratch_bytes = 0;
}

export function attention_merge_task(
  params: AttentionMergeParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const each = task_rows(params);
  const end = <u32>min<u64>(params.rows, (<u64>task + 1) * each);
  for (let row = <u32>(<u64>task * each); row < end; row++) merge_row(params, row);
}

function task_rows(params: AttentionMergeParams): u64 {
  return max<u64>(1, TASK_FLOATS / (max<u64>(1, params.parts) * (<u64>params.value_dim + 1)));
}

function merge_row(params: AttentionMergeParams, row: u32): void {
  const parts = params.parts;
  const rows = params.rows;
  const bytes: usize = params.value_dim * 4;
  const out = params.out + row * bytes;
  const lses = params.part_lse + row * 4;
  let largest: f32 = -Infinity;
  for (let part: u32 = 0; part < parts; part++) {
    const lse = load<f32>(lses + part * rows * 4);
    if (lse > largest) largest = lse;
  }
  // NaNs are never the largest; they come in through their weights.
  const base: f32 = largest == -Infinity ? 0 : largest;
  memory.fill(out, 0, bytes);
  const whole = bytes & ~15;
  let sum: f32 = 0;
  for (let part: u32 = 0; part < parts; part++) {
    const lse = load<f32>(lses + part * rows * 4);
    if (lse == -Infinity) continue;
    const weights = math.exp(f32x4.splat(lse - base));
    const weight = f32x4.extract_lane(weights, 0);
    const values = params.part_out + (part * rows + row) * bytes;
    sum += weight;
    for (let i: usize = 0; i < whole; i += 16) v128.store(out + i, simd.madd(weights, v128.load(values + i), v128.load(out + i)));
    for (let i = whole; i < bytes; i += 4) store<f32>(out + i, load<f32>(out + i) + weight * load<f32>(values + i));
  }
  if (sum == 0) {
    store<f32>(params.lse + row * 4, -Infinity);
    return;
  }
  for (let i: usize = 0; i < bytes; i += 4) store<f32>(out + i, load<f32>(out + i) / sum);
  store<f32>(params.lse + row * 4, <f32>(<f64>base + math.ln(sum)));
}
