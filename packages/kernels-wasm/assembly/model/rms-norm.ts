// model/rms-norm: out = weight x / sqrt(mean(x^2) + epsilon), token by token.
//
// Two passes over a token's vector, the second from the cache: 2 running vectors of squares, then the products. Sums
// in f32, the square root in f64. A task is 128 KiB of vectors: bound by bandwidth.
import { ModelRmsNormParams } from "../gen/params";
import { KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";

const TASK_FLOATS: u32 = 32 << 10;

export function model_rms_norm_plan(params: ModelRmsNormParams, slots: u32, out: KernelPlan): void {
  const each = task_tokens(params);
  out.kernel = 0;
  out.phases = params.tokens > 0 ? 1 : 0;
  out.tasks0 = <u32>((<u64>params.tokens + each - 1) / each);
  // Where a task adds up the lanes of its vectors.
  out.scratch_bytes = 64 * <f64>slots;
}

export function model_rms_norm_task(
  params: ModelRmsNormParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const each = task_tokens(params);
  const end = min(params.tokens, (task + 1) * each);
  for (let token = task * each; token < end; token++) normalise(params, token, scratch + slot * 64);
}

function task_tokens(params: ModelRmsNormParams): u32 {
  return max<u32>(1, TASK_FLOATS / params.dim);
}

function normalise(params: ModelRmsNormParams, token: u32, lanes: usize): void {
  const bytes: usize = params.dim * 4;
  const x = params.x + token * bytes;
  const out = params.out + token * bytes;
  const whole = bytes & ~15;
  let even = f32x4.splat(0);
  let odd = even;
  let i: usize = 0;
  for (; i + 32 <= bytes; i += 32) {
    const a = v128.load(x + i);
    const b = v128.load(x + i, 16);
    even = simd.madd(a, a, even);
    odd = simd.madd(b, b, odd);
  }
  for (; i < whole; i += 16) even = simd.madd(v128.load(x + i), v128.load(x + i), even);
  v128.store(lanes, f32x4.add(even, odd));
  let squares = load<f32>(lanes) + load<f32>(lanes, 4) + (load<f32>(lanes, 8) + load<f32>(lanes, 12));
  for (; i < bytes; i += 4) squares += load<f32>(x + i) * load<f32>(x + i);
  const scale = <f32>(1 / Math.sqrt(<f64>squares / <f64>params.dim + <f64>params.epsilon));
  const scales = f32x4.splat(scale);
  const weight = params.weight;
  for (i = 0; i < whole; i += 16) v128.store(out + i, f32x4.mul(v128.load(weight + i), f32x4.mul(v128.load(x + i), scales)));
  for (; i < bytes; i += 4) store<f32>(out + i, load<f32>(weight + i) * (load<f32>(x + i) * scale));
}
