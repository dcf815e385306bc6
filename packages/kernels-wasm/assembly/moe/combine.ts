// moe/combine: out[t] = sum_k weights[t][k] rows[t][k], in the order of k.
//
// Four vectors of sums stay in registers while the rows of a token pass, so each row is read and each sum written once. A
// task is 64 Ki floats of rows; bound by bandwidth.
import { MoeCombineParams } from "../gen/params";
import { KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";

const TASK_FLOATS: u32 = 64 << 10;

function task_tokens(params: MoeCombineParams): u32 {
  return max<u32>(1, TASK_FLOATS / (params.top_k * params.dim));
}

export function moe_combine_plan(params: MoeCombineParams, slots: u32, out: KernelPlan): void {
  const each = task_tokens(params);
  out.kernel = 0;
  out.phases = params.tokens > 0 ? 1 : 0;
  out.tasks0 = <u32>((<u64>params.tokens + each - 1) / each);
  out.scratch_bytes = 0;
}

export function moe_combine_task(
  params: MoeCombineParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const each = task_tokens(params);
  const end = min(params.tokens, (task + 1) * each);
  for (let t = task * each; t < end; t++) combine_token(params, t);
}

function combine_token(params: MoeCombineParams, t: u32): void {
  const k = params.top_k;
  const bytes: usize = params.dim * 4;
  const rows = params.rows + <usize>t * k * bytes;
  const weights = params.weights + <usize>t * k * 4;
  const out = params.out + t * bytes;
  let at: usize = 0;
  for (; at + 64 <= bytes; at += 64) {
    let a = f32x4.splat(0);
    let b = a;
    let c = a;
    let d = a;
    for (let i: u32 = 0; i < k; i++) {
      const weight = load<f32>(weights + i * 4);
      if (weight == 0) continue;
      const by = f32x4.splat(weight);
      const row = rows + i * bytes + at;
      a = simd.madd(by, v128.load(row), a);
      b = simd.madd(by, v128.load(row, 16), b);
      c = simd.madd(by, v128.load(row, 32), c);
      d = simd.madd(by, v128.load(row, 48), d);
    }
    v128.store(out + at, a);
    v128.store(out + at, b, 16);
    v128.store(out + at, c, 32);
    v128.store(out + at, d, 48);
  }
  for (; at < bytes; at += 4) {
    let sum: f32 = 0;
    for (let i: u32 = 0; i < k; i++) {
      const weight = load<f32>(weights + i * 4);
      if (weight != 0) sum += weight * load<f32>(rows + i * bytes + at);
    }
    store<f32>(out + at, sum);
  }
}
