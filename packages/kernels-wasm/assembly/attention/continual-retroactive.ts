// attention/continual-retroactive: out_i = AV_i / d_i for each query of the window, with d and AV brought up to date: what the
// leaving key weighed is taken off, what the new one weighs is added; a row whose estimated error grows too large is computed
// exactly, and so is the newest.
//
// A task is a head of a stream. Rows go in fours: two logits each, then weights, sums and estimates of all four at once, then the
// values row by row: one pass that reads and writes AV and writes out. f32 relative to whole powers of two. Steps are counted
// in a second phase, since all heads of a stream read them. Bound by memory as long as few rows are refused.
import { ATTENTION_CONTINUAL_RETROACTIVE_PORT_STEPS, AttentionContinualRetroactiveParams } from "../gen/params";
import { fail, KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";
import { rows, turn } from "./continual-rows";

const UNIT: f32 = 5.9604644775390625e-8;
const ROW_EXTRA: u32 = 3;
// What a task keeps of four rows: logits, then weights; powers, factors, sums, errors.
const ARRIVES: usize = 0;
const LEAVES: usize = 16;
const POWER: usize = 32;
const FACTOR: usize = 48;
const SUM: usize = 64;
const ERROR: usize = 80;
const LANES_BYTES: u32 = 128;

export function attention_continual_retroactive_plan(params: AttentionContinualRetroactiveParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.streams > 0 ? 2 : 0;
  out.tasks0 = params.streams * params.heads;
  out.tasks1 = 1;
  out.scratch_bytes = <f64>slots * <f64>slot_bytes(params);
}

export function attention_continual_retroactive_task(
  params: AttentionContinualRetroactiveParams,
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
  const ring = task * window * bytes;
  const sound = turn.sound(steps, window);
  const held = sound ? turn.held(steps, window) : 0;
  store<f32>(params.error + task * 4, 0);
  store<i32>(params.recomputed + task * 4, 0);
  memory.fill(params.out + ring + held * bytes, 0, (window - held) * bytes);
  if (!sound) {
    fail(status, ATTENTION_CONTINUAL_RETROACTIVE_PORT_STEPS, stream, steps);
    return;
  }
  const lanes = scratch + slot * slot_bytes(params);
  const leaving = lanes + LANES_BYTES;
  const at = ring + turn.slot(steps, window) * bytes;
  memory.copy(leaving, params.key_ring + at, bytes);
  memory.copy(leaving + bytes, params.value_ring + at, bytes);
  memory.copy(params.key_ring + at, params.key + task * bytes, bytes);
  memory.copy(params.value_ring + at, params.value + task * bytes, bytes);
  memory.copy(params.query_ring + at, params.query + task * bytes, bytes);
  step(params, task, steps, lanes);
}

/** Four rows, the leaving key and value, logits and their powers. */
function slot_bytes(params: AttentionContinualRetroactiveParams): u32 {
  return (LANES_BYTES + 8 * params.head_dim + 8 * ((params.window + 15) & ~15) + 63) & ~63;
}

function step(params: AttentionContinualRetroactiveParams, task: u32, steps: u32, lanes: usize): void {
  const window = params.window;
  const newest = turn.slot(steps, window);
  const held = turn.held(steps, window);
  const oldest = turn.oldest(steps, window);
  const width: usize = (params.head_dim + ROW_EXTRA) * 4;
  const first_row = params.rows + task * window * width;
  let error: f32 = 0;
  let recomputed: i32 = 0;
  for (let first: u32 = 0; first < held; first += 4) {
    const count = min<u32>(4, held - first);
    update_sums(params, task, turn.full(steps, window), first, count, lanes);
    for (let j: u32 = 0; j < count; j++) {
      const slot = first + j;
      const place = slot >= oldest ? slot - oldest : slot + window - oldest;
      const lane = lanes + j * 4;
      // A sum that cancelled may be anything, so that its estimate is negative or not a number.
      let taken = slot != newest && load<f32>(lane, SUM) > 0 && load<f32>(lane, ERROR) < params.tolerance;
      if (taken) taken = update_values(params, task, turn.full(steps, window), slot, place, lanes, lane);
      if (!taken) {
        compute(params, task, held, slot, place, lanes);
        if (slot != newest) recomputed++;
      }
      error = max(error, load<f32>(first_row + slot * width + params.head_dim * 4, 8));
    }
  }
  store<f32>(params.error + task * 4, error);
  store<i32>(params.recomputed + task * 4, recomputed);
}

/** Weights, sums and estimates of `count` rows from `first` on. */
function update_sums(params: AttentionContinualRetroactiveParams, task: u32, full: bool, first: u32, count: u32, lanes: usize): void {
  const bytes: usize = params.head_dim * 4;
  const key = params.key + task * bytes;
  for (let j: u32 = 0; j < 4; j++) {
    const slot = task * params.window + first + min(j, count - 1);
    const query = params.query_ring + slot * bytes;
    const row = params.rows + slot * (params.head_dim + ROW_EXTRA) * 4 + bytes;
    const lane = lanes + j * 4;
    store<f32>(lane, rows.dot(query, key, bytes) * params.scale, ARRIVES);
    store<f32>(lane, full ? rows.dot(query, lanes + LANES_BYTES, bytes) * params.scale : 0, LEAVES);
    store<f32>(lane, load<f32>(row), POWER);
    store<f32>(lane, load<f32>(row, 4), SUM);
    store<f32>(lane, load<f32>(row, 8), ERROR);
  }
  const arrives = v128.load(lanes, ARRIVES);
  const in_power = rows.power(arrives);
  const kept = v128.load(lanes, POWER);
  const power = f32x4.pmax(kept, in_power);
  const arrived = f32x4.mul(rows.part(arrives, in_power), rows.scale(f32x4.sub(in_power, power)));
  let left = f32x4.splat(0);
  if (full) {
    const leaves = v128.load(lanes, LEAVES);
    const off_power = rows.power(leaves);
    left = f32x4.mul(rows.part(leaves, off_power), rows.scale(f32x4.sub(off_power, power)));
  }
  const factor = rows.scale(f32x4.sub(kept, power));
  const before = f32x4.mul(v128.load(lanes, SUM), factor);
  const after = f32x4.add(f32x4.sub(before, left), arrived);
  const added = simd.madd(f32x4.splat(2 * UNIT), f32x4.pmax(before, left), f32x4.mul(f32x4.splat(UNIT), arrived));
  v128.store(lanes, arrived, ARRIVES);
  v128.store(lanes, left, LEAVES);
  v128.store(lanes, power, POWER);
  v128.store(lanes, factor, FACTOR);
  v128.store(lanes, after, SUM);
  v128.store(lanes, f32x4.div(simd.madd(v128.load(lanes, ERROR), before, added), after), ERROR);
}

/** Whether all of the row is finite. */
function update_values(
  params: AttentionContinualRetroactiveParams,
  task: u32,
  full: bool,
  slot: u32,
  place: u32,
  lanes: usize,
  lane: usize,
): bool {
  const bytes: usize = params.head_dim * 4;
  const row = params.rows + (task * params.window + slot) * (params.head_dim + ROW_EXTRA) * 4;
  const out = params.out + (task * params.window + place) * bytes;
  const value = params.value + task * bytes;
  const leaving = lanes + LANES_BYTES + bytes;
  const factor = v128.load32_splat(lane, FACTOR);
  const arrives = v128.load32_splat(lane, ARRIVES);
  const leaves = f32x4.neg(v128.load32_splat(lane, LEAVES));
  const sum = v128.load32_splat(lane, SUM);
  const zero = f32x4.splat(0);
  let odd = zero;
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) {
    let x = f32x4.mul(v128.load(row + i), factor);
    if (full) x = simd.madd(leaves, v128.load(leaving + i), x);
    x = simd.madd(arrives, v128.load(value + i), x);
    v128.store(row + i, x);
    const y = f32x4.div(x, sum);
    v128.store(out + i, y);
    // 0 unless there is a NaN or an infinity.
    odd = f32x4.add(odd, f32x4.mul(y, zero));
  }
  let rest = rows.total(odd);
  for (; i < bytes; i += 4) {
    let x = load<f32>(row + i) * load<f32>(lane, FACTOR);
    if (full) x -= load<f32>(lane, LEAVES) * load<f32>(leaving + i);
    x += load<f32>(lane, ARRIVES) * load<f32>(value + i);
    store<f32>(row + i, x);
    const y = x / load<f32>(lane, SUM);
    store<f32>(out + i, y);
    rest += y * 0;
  }
  if (rest != 0) return false;
  store<f32>(row + bytes, load<f32>(lane, POWER));
  store<f32>(row + bytes, load<f32>(lane, SUM), 4);
  store<f32>(row + bytes, load<f32>(lane, ERROR), 8);
  return true;
}

function compute(params: AttentionContinualRetroactiveParams, task: u32, held: u32, slot: u32, place: u32, lanes: usize): void {
  const bytes: usize = params.head_dim * 4;
  const ring = task * params.window * bytes;
  const row = params.rows + (task * params.window + slot) * (params.head_dim + ROW_EXTRA) * 4;
  const logits = lanes + LANES_BYTES + 2 * bytes;
  rows.exact(
    params.query_ring + ring + slot * bytes,
    params.key_ring + ring,
    params.value_ring + ring,
    held,
    bytes,
    params.scale,
    logits,
    row,
  );
  const sum = load<f32>(logits, 4);
  const sound = rows.divide(row, sum, bytes, params.out + ring + place * bytes);
  if (!sound) memory.fill(row, 0, bytes);
  store<f32>(row + bytes, sound ? load<f32>(logits) : 0);
  store<f32>(row + bytes, sound ? sum : 0, 4);
  store<f32>(row + bytes, sound ? 0 : Infinity, 8);
}
