// logits/logprob: ln p of a target, entropy, the k best, KL(p || q), with p = softmax(logits), q = softmax(against).
//
// A row is a task: a pass for the largest, then one for all sums, with the row in the second-level cache up to 64k tokens.
// Sums of exp(x), exp(x) x and exp(x) (x - y), relative to the largest, run over blocks of 256 in f32 and are joined in
// f64. The k best are kept in order. Bound by the exponentials.
import { LOGITS_LOGPROB_PORT_TARGETS, LogitsLogprobParams } from "../gen/params";
import { math } from "../lib/exp";
import { fail, KernelPlan, Status } from "../lib/kernel";

const BLOCK: u32 = 256;
/** Below this, relative to the largest, a token counts as none in sums of p times something. */
const FAINTEST: f32 = -87;

/** In a slot's scratch: the sums of a row, then room for the rest of a row. */
@unmanaged
class Sums {
  weight: f64;
  mean: f64;
  ratio: f64;
  padding: f64;
  rest: v128;
}

export function logits_logprob_plan(params: LogitsLogprobParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.tokens > 0 ? 1 : 0;
  out.tasks0 = params.tokens;
  out.scratch_bytes = 64 * <f64>slots;
}

export function logits_logprob_task(
  params: LogitsLogprobParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const vocab = params.vocab;
  const row = params.logits + task * vocab * 4;
  const other = params.against ? params.against + task * vocab * 4 : 0;
  const sums = changetype<Sums>(scratch + slot * 64);
  const largest = largest_of(row, vocab, sums);
  const other_largest: f32 = other ? largest_of(other, vocab, sums) : 0;
  let other_log: f64 = 0;
  if (other) {
    add_up(other, 0, vocab, other_largest, 0, sums);
    other_log = math.ln(sums.weight);
  }
  add_up(row, other, vocab, largest, other_largest, sums);
  // Relative to the largest; NaN where there is no distribution.
  const log_sum = math.ln(sums.weight);
  const target = load<i32>(params.targets + task * 4);
  const inside = target >= 0 && <u32>target < vocab;
  if (!inside && target != -1) fail(status, LOGITS_LOGPROB_PORT_TARGETS, task, target);
  store<f32>(params.chosen + task * 4, inside ? log_p(load<f32>(row + target * 4), largest, log_sum) : 0);
  store<f32>(params.entropy + task * 4, <f32>(log_sum - sums.mean / sums.weight));
  if (params.kl) store<f32>(params.kl + task * 4, <f32>(sums.ratio / sums.weight - log_sum + other_log));
  const k = params.k;
  if (k == 0) return;
  const ids = params.ids + task * k * 4;
  const best = params.best + task * k * 4;
  const count = find_best(row, vocab, k, ids, best);
  for (let i: u32 = 0; i < k; i++) {
    if (i < count) store<f32>(best + i * 4, log_p(load<f32>(best + i * 4), largest, log_sum));
    else {
      store<i32>(ids + i * 4, -1);
      store<f32>(best + i * 4, -Infinity);
    }
  }
}

function log_p(x: f32, largest: f32, log_sum: f64): f32 {
  return <f32>(<f64>x - <f64>largest - log_sum);
}

/** A vector from `at` on; `fill` behind the end. */
class row_of {
  @inline static part(row: usize, at: u32, end: u32, fill: f32, sums: Sums): v128 {
    if (at + 4 <= end) return v128.load(row + at * 4);
    const rest = changetype<usize>(sums) + offsetof<Sums>("rest");
    v128.store(rest, f32x4.splat(fill));
    memory.copy(rest, row + at * 4, (end - at) * 4);
    return v128.load(rest);
  }
}

/** NaNs are passed over. */
function largest_of(row: usize, n: u32, sums: Sums): f32 {
  let most = f32x4.splat(-Infinity);
  for (let i: u32 = 0; i < n; i += 4) most = f32x4.pmax(most, row_of.part(row, i, n, -Infinity, sums));
  const pairs = f32x4.pmax(most, v128.shuffle<i32>(most, most, 2, 3, 0, 1));
  return f32x4.extract_lane(f32x4.pmax(pairs, v128.shuffle<i32>(pairs, pairs, 1, 0, 3, 2)), 0);
}

function add_up(row: usize, other: usize, n: u32, largest: f32, other_largest: f32, sums: Sums): void {
  const base = f32x4.splat(largest == -Infinity ? 0 : largest);
  const other_base = f32x4.splat(other_largest == -Infinity ? 0 : other_largest);
  const none = f32x4.splat(0);
  sums.weight = 0;
  sums.mean = 0;
  sums.ratio = 0;
  for (let block: u32 = 0; block < n; block += BLOCK) {
    const end = min(block + BLOCK, n);
    let weights = none;
    let means = none;
    let ratios = none;
    for (let i = block; i < end; i += 4) {
      const x = f32x4.sub(row_of.part(row, i, end, -Infinity, sums), base);
      const weight = math.exp(x);
      const counts = f32x4.gt(x, f32x4.splat(FAINTEST));
      weights = f32x4.add(weights, weight);
      means = f32x4.add(means, v128.and(f32x4.mul(weight, x), counts));
      if (other) {
        const y = f32x4.sub(row_of.part(other, i, end, 0, sums), other_base);
        ratios = f32x4.add(ratios, v128.and(f32x4.mul(weight, f32x4.sub(x, y)), counts));
      }
    }
    sums.weight += <f64>lanes(weights);
    sums.mean += <f64>lanes(means);
    sums.ratio += <f64>lanes(ratios);
  }
}

function lanes(x: v128): f32 {
  return f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1) + (f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3));
}

/** The k best by (logit, lower id), in order; returns how many there are. */
function find_best(row: usize, n: u32, k: u32, ids: usize, values: usize): u32 {
  let count: u32 = 0;
  const last = values + (k - 1) * 4;
  for (let j: u32 = 0; j < n; j++) {
    if (count == k && j + 4 <= n && !v128.any_true(f32x4.gt(v128.load(row + j * 4), v128.load32_splat(last)))) {
      j += 3;
      continue;
    }
    const x = load<f32>(row + j * 4);
    if (isNaN<f32>(x) || (count == k && !(x > load<f32>(last)))) continue;
    let at = count < k ? count++ : k - 1;
    for (; at > 0 && load<f32>(values + at * 4 - 4) < x; at--) {
      store<f32>(values + at * 4, load<f32>(values + at * 4 - 4));
      store<i32>(ids + at * 4, load<i32>(ids + at * 4 - 4));
    }
    store<f32>(values + at * 4, x);
    store<i32>(ids + at * 4, j);
  }
  return count;
}
