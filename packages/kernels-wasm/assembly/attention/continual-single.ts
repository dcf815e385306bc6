// attention/continual-single: the newest key and value go into a stream's ring, and out = sum_t softmax(scale q k)_t v_t,
// lse = ln sum_t exp(scale q k_t) over it.
//
// A task is a head of a stream: its logits, then their weights relative to the largest power of two, then the values, 4
// vectors of sums at a time. f32, the logarithm f64. Steps are counted in a second phase, since all heads of a stream read
// them. Bound by memory: the window's keys and values are read once.
import { ATTENTION_CONTINUAL_SINGLE_PORT_STEPS, AttentionContinualSingleParams } from "../gen/params";
import { math } from "../lib/exp";
import { fail, KernelPlan, Status } from "../lib/kernel";
import { rows, turn } from "./continual-rows";

export function attention_continual_single_plan(params: AttentionContinualSingleParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.streams > 0 ? 2 : 0;
  out.tasks0 = params.streams * params.heads;
  out.tasks1 = 1;
  out.scratch_bytes = <f64>slots * <f64>slot_bytes(params);
}

export function attention_continual_single_task(
  params: AttentionContinualSingleParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  if (phase == 1) {
    turn.count(params.steps, params.streams, params.window);
    return;
  }
  const window = params.window;
  const bytes: usize = params.head_dim * 4;
  const stream = task / params.heads;
  const steps = load<i32>(params.steps + stream * 4);
  const out = params.out + task * bytes;
  if (!turn.sound(steps, window)) {
    fail(status, ATTENTION_CONTINUAL_SINGLE_PORT_STEPS, stream, steps);
    memory.fill(out, 0, bytes);
    store<f32>(params.lse + task * 4, -Infinity);
    return;
  }
  const keys = params.key_ring + task * window * bytes;
  const values = params.value_ring + task * window * bytes;
  const at = turn.slot(steps, window) * bytes;
  memory.copy(keys + at, params.key + task * bytes, bytes);
  memory.copy(values + at, params.value + task * bytes, bytes);
  const logits = scratch + slot * slot_bytes(params);
  rows.exact(params.query + task * bytes, keys, values, turn.held(steps, window), bytes, params.scale, logits, out);
  const sum = load<f32>(logits, 4);
  rows.divide(out, sum, bytes, out);
  store<f32>(params.lse + task * 4, <f32>(<f64>load<f32>(logits) * 0.6931471805599453 + math.ln(sum)));
}

/** Logits and their powers. */
function slot_bytes(params: AttentionContinualSingleParams): u32 {
  return 8 * ((params.window + 15) & ~15);
}
