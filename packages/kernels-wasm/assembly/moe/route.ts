// moe/route: ids = top-k of z or s + bias, weights = scale s / (sum of the chosen s + 1e-20); s = softmax(z) or sigmoid(z).
//
// All f64 and in the reference's order of steps, so the bits are the same on every host; the exponentials are taken two at
// a time. The best are kept in a sorted list of topK, where an expert is put only if it beats the last. A task is 8192 logits.
import { MOE_ROUTE_SCORE_SOFTMAX, MoeRouteParams } from "../gen/params";
import { align_line, KernelPlan, Status } from "../lib/kernel";

const TASK_LOGITS: u32 = 8192;

function task_tokens(params: MoeRouteParams): u32 {
  return max<u32>(1, TASK_LOGITS / params.experts);
}
/** z, s and what is compared (an even number of each), then the groups' worth: f64; the chosen groups, and a mark for each. */
function slot_bytes(params: MoeRouteParams): u32 {
  return <u32>align_line(24 * even(params.experts) + 8 * params.groups + 4 * (params.kept_groups + params.groups));
}
function even(n: u32): u32 {
  return (n + 1) & ~1;
}

export function moe_route_plan(params: MoeRouteParams, slots: u32, out: KernelPlan): void {
  const each = task_tokens(params);
  out.kernel = 0;
  out.phases = params.tokens > 0 ? 1 : 0;
  out.tasks0 = <u32>((<u64>params.tokens + each - 1) / each);
  out.scratch_bytes = <f64>slots * slot_bytes(params);
}

export function moe_route_task(params: MoeRouteParams, scratch: usize, phase: u32, task: u32, slot: u32, slots: u32, status: Status): void {
  const each = task_tokens(params);
  const end = min(params.tokens, (task + 1) * each);
  for (let t = task * each; t < end; t++) route_token(params, scratch + slot * slot_bytes(params), t);
}

function route_token(params: MoeRouteParams, z: usize, t: u32): void {
  const experts = params.experts;
  const row: usize = even(experts) * 8;
  const s = z + row;
  const compared = s + row;
  const logits = params.logits + <usize>t * experts * 4;
  let nan = false;
  let largest: f64 = -Infinity;
  for (let e: u32 = 0; e < experts; e++) {
    const logit = <f64>load<f32>(logits + e * 4);
    if (isNaN(logit)) nan = true;
    const value = or_least(logit);
    store<f64>(z + e * 8, value);
    if (value > largest) largest = value;
  }
  if (params.score == MOE_ROUTE_SCORE_SOFTMAX) softmax(experts, z, largest, compared, s);
  else sigmoid(experts, z, compared, s);
  let values = z;
  if (params.bias != 0) {
    for (let e: u32 = 0; e < experts; e++)
      store<f64>(compared + e * 8, or_least(load<f64>(s + e * 8) + <f64>load<f32>(params.bias + e * 4)));
    values = compared;
  }
  const k = params.top_k;
  const ids = params.ids + <usize>t * k * 4;
  const weights = params.weights + <usize>t * k * 4;
  choose(params, values, compared + row, ids);
  let sum: f64 = 0;
  for (let i: u32 = 0; i < k; i++) sum += load<f64>(s + load<u32>(ids + i * 4) * 8);
  for (let i: u32 = 0; i < k; i++) {
    let share = load<f64>(s + load<u32>(ids + i * 4) * 8);
    if (params.renormalise != 0) share = share / (sum + 1e-20);
    store<f32>(weights + i * 4, nan ? NaN : <f32>(share * <f64>params.scale));
  }
}

/** Differences lie where the compared scores will. */
function softmax(experts: u32, z: usize, largest: f64, differences: usize, s: usize): void {
  for (let e: u32 = 0; e < experts; e++) {
    const value = load<f64>(z + e * 8);
    store<f64>(differences + e * 8, value == largest ? 0 : value - largest);
  }
  exponentials(differences, experts, s);
  let sum: f64 = 0;
  for (let e: u32 = 0; e < experts; e++) sum += load<f64>(s + e * 8);
  for (let e: u32 = 0; e < experts; e++) store<f64>(s + e * 8, load<f64>(s + e * 8) / sum);
}

function sigmoid(experts: u32, z: usize, differences: usize, s: usize): void {
  for (let e: u32 = 0; e < experts; e++) store<f64>(differences + e * 8, -Math.abs(load<f64>(z + e * 8)));
  exponentials(differences, experts, s);
  for (let e: u32 = 0; e < experts; e++) {
    const power = load<f64>(s + e * 8);
    store<f64>(s + e * 8, (load<f64>(z + e * 8) >= 0 ? 1 : power) / (1 + power));
  }
}

/** exp(x[i]) for x[i] of at most 0: the steps of canonical.ts. May write one value behind the last. */
function exponentials(x: usize, n: u32, out: usize): void {
  const magic = f64x2.splat(6755399441055744);
  for (let at: usize = 0; at < n * 8; at += 16) {
    const value = v128.load(x + at);
    const biased = f64x2.add(f64x2.mul(value, f64x2.splat(1.4426950408889634)), magic);
    const whole = f64x2.sub(biased, magic);
    const high = f64x2.sub(value, f64x2.mul(whole, f64x2.splat(0.6931471803691238)));
    const r = f64x2.sub(high, f64x2.mul(whole, f64x2.splat(1.9082149292705877e-10)));
    let p = step(f64x2.splat(1.6059043836821613e-10), r, 2.08767569878681e-9);
    p = step(p, r, 2.505210838544172e-8);
    p = step(p, r, 2.755731922398589e-7);
    p = step(p, r, 2.7557319223985893e-6);
    p = step(p, r, 2.48015873015873e-5);
    p = step(p, r, 1.984126984126984e-4);
    p = step(p, r, 1.3888888888888889e-3);
    p = step(p, r, 8.333333333333333e-3);
    p = step(p, r, 4.1666666666666664e-2);
    p = step(p, r, 1.6666666666666666e-1);
    p = step(p, r, 0.5);
    p = step(p, r, 1);
    p = step(p, r, 1);
    const power = i64x2.shl(i64x2.add(biased, i64x2.splat(1023)), 52);
    v128.store(out + at, v128.and(f64x2.mul(p, power), f64x2.ge(value, f64x2.splat(-708))));
  }
}

function step(p: v128, r: v128, factor: f64): v128 {
  return f64x2.add(f64x2.mul(p, r), f64x2.splat(factor));
}

/** Puts from <= e < to into a list of the k best, sorted, of equals the lower number first. Returns how long it is then. */
function insert_best(values: usize, from: u32, to: u32, k: u32, list: usize, length: u32): u32 {
  for (let e = from; e < to; e++) {
    const value = load<f64>(values + e * 8);
    if (length == k && !(value > load<f64>(values + load<u32>(list + (k - 1) * 4) * 8))) continue;
    let at = length < k ? length++ : k - 1;
    for (; at > 0; at--) {
      const before = load<u32>(list + (at - 1) * 4);
      if (!(value > load<f64>(values + before * 8))) break;
      store<u32>(list + at * 4, before);
    }
    store<u32>(list + at * 4, e);
  }
  return length;
}

function choose(params: MoeRouteParams, values: usize, worth: usize, ids: usize): void {
  const groups = params.groups;
  if (groups == 1) {
    insert_best(values, 0, params.experts, params.top_k, ids, 0);
    return;
  }
  const size = params.experts / groups;
  const kept = worth + groups * 8;
  const marks = kept + params.kept_groups * 4;
  for (let g: u32 = 0; g < groups; g++) {
    // The list of two lies where the first marks will.
    const n = insert_best(values, g * size, (g + 1) * size, 2, kept, 0);
    let best = load<f64>(values + load<u32>(kept) * 8);
    if (params.bias != 0 && n == 2) best = or_least(best + load<f64>(values + load<u32>(kept, 4) * 8));
    store<f64>(worth + g * 8, best);
  }
  insert_best(worth, 0, groups, params.kept_groups, kept, 0);
  memory.fill(marks, 0, groups * 4);
  for (let i: u32 = 0; i < params.kept_groups; i++) store<u32>(marks + load<u32>(kept + i * 4) * 4, 1);
  let length: u32 = 0;
  for (let g: u32 = 0; g < groups; g++)
    if (load<u32>(marks + g * 4) != 0) length = insert_best(values, g * size, (g + 1) * size, params.top_k, ids, length);
}

function or_least(value: f64): f64 {
  return isNaN(value) ? -Infinity : value;
}
