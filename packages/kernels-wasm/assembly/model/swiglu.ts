// model/swiglu: out = silu(gate) up, silu(x) = x / (1 + exp(-x)), component by component.
//
// As x exp(min(x, 0)) / (1 + exp(-|x|)): no exponential overflows, and what is 0 for large -x stays so. f32; the rest of
// the last vector is copied out. A task is 16384 components: bound by the two exponentials.
import { ModelSwigluParams } from "../gen/params";
import { math } from "../lib/exp";
import { KernelPlan, Status } from "../lib/kernel";

const TASK_FLOATS: u32 = 16 << 10;

export function model_swiglu_plan(params: ModelSwigluParams, slots: u32, out: KernelPlan): void {
  const all = <u64>params.tokens * params.dim;
  out.kernel = 0;
  out.phases = all > 0 ? 1 : 0;
  out.tasks0 = <u32>((all + TASK_FLOATS - 1) / TASK_FLOATS);
  // The rest of the last vectors.
  out.scratch_bytes = 64 * <f64>slots;
}

export function model_swiglu_task(
  params: ModelSwigluParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const all: usize = params.tokens * params.dim * 4;
  let i: usize = task * TASK_FLOATS * 4;
  const end = min(i + TASK_FLOATS * 4, all);
  for (; i + 16 <= end; i += 16) v128.store(params.out + i, unit.gated(v128.load(params.gate + i), v128.load(params.up + i)));
  if (i == end) return;
  const rest = scratch + slot * 64;
  memory.fill(rest, 0, 32);
  memory.copy(rest, params.gate + i, end - i);
  memory.copy(rest + 16, params.up + i, end - i);
  v128.store(rest, unit.gated(v128.load(rest), v128.load(rest, 16)));
  memory.copy(params.out + i, rest, end - i);
}

class unit {
  @inline static gated(x: v128, up: v128): v128 {
    const less = math.exp(f32x4.min(x, f32x4.splat(0)));
    const size = math.exp(f32x4.neg(f32x4.abs(x)));
    return f32x4.mul(f32x4.mul(x, f32x4.div(less, f32x4.add(f32x4.splat(1), size))), up);
  }
}
