import type { ReferenceCall } from "../../op/define.js";
import {
  attend,
  component,
  insert,
  logitOf,
  type RingAxes,
  type RingTensors,
  type Row,
  type Turn,
  turnOf,
} from "../continual-single/ring.js";

export interface RetroactiveTensors extends RingTensors {
  queryRing: Float32Array;
  rows: Float32Array;
  out: Float32Array;
  error: Float32Array;
  recomputed: Int32Array;
}

/** Unit roundoff of f32, in which rows are kept. */
export const unit = 2 ** -24;
/** Numbers of a row beside its weighted values: the power of two that it is relative to, its sum of weights, its error. */
export const rowExtra = 3;

/** out_i = sum_t softmax(scale q_i k)_t v_t for every query of the window, anew; which rows the guard refuses, by their estimates. */
export function reference(call: ReferenceCall): void {
  const { streams, heads, headDim, window } = call.axes as RingAxes;
  const { steps, out, error, recomputed } = call.tensors as RetroactiveTensors;
  for (let stream = 0; stream < streams; stream++) {
    const turn = turnOf(steps[stream] as number, window);
    out.fill(0, stream * heads * window * headDim, (stream + 1) * heads * window * headDim);
    error.fill(0, stream * heads, (stream + 1) * heads);
    recomputed.fill(0, stream * heads, (stream + 1) * heads);
    if (!turn) {
      call.fail("steps", stream, steps[stream] as number);
      continue;
    }
    for (let head = stream * heads; head < (stream + 1) * heads; head++) stepHead(call, head, turn);
    steps[stream] = turn.next;
  }
  // How a row is kept is the kernel's affair: what passes it by is seen in the next step.
  call.magnitude?.rows?.fill(Number.POSITIVE_INFINITY);
}

function stepHead({ axes, scalars, tensors, magnitude }: ReferenceCall, head: number, turn: Turn): void {
  const { headDim, window } = axes as RingAxes;
  const { query, queryRing, rows, out, error, recomputed } = tensors as RetroactiveTensors;
  const scale = scalars.scale as number;
  const leaving = insert(tensors, axes as RingAxes, head, turn);
  queryRing.set(query.subarray(head * headDim, (head + 1) * headDim), (head * window + turn.slot) * headDim);
  for (let place = 0; place < turn.held; place++) {
    const slot = (turn.oldest + place) % window;
    const own = queryRing.subarray((head * window + slot) * headDim, (head * window + slot + 1) * headDim);
    const row = attend(own, tensors, axes as RingAxes, head, turn.held, scale);
    const kept = rows.subarray((head * window + slot) * (headDim + rowExtra), (head * window + slot + 1) * (headDim + rowExtra));
    const change =
      slot === turn.slot
        ? undefined
        : changeOf(row, own, tensors, axes as RingAxes, head, turn, leaving, kept[headDim + 2] as number, scale);
    // Of the numbers behind a NaN there is no estimate: such a row is refused too.
    const refused = change !== undefined && !(change.error < (scalars.tolerance as number));
    if (refused) recomputed[head] = (recomputed[head] as number) + 1;
    const updated = refused ? undefined : change;
    store(kept, row, updated?.error ?? 0);
    const at = (head * window + place) * headDim;
    for (let d = 0; d < headDim; d++) {
      out[at + d] = component(row, d);
      if (magnitude?.out) magnitude.out[at + d] = magnitudeOf(row, updated, d, headDim + window + 32);
    }
    error[head] = Math.max(error[head] as number, kept[headDim + 2] as number);
    if (magnitude?.error && updated)
      magnitude.error[head] = Math.max(magnitude.error[head] as number, updated.error * (1 + (2 * (row.size + updated.size)) / row.sum));
  }
}

/** What the guard of a row that is updated makes of a step. */
export interface Change {
  /** The estimate of its relative error afterwards. */
  readonly error: number;
  /** What of the former estimate is in it. */
  readonly carried: number;
  /** Of the weight that leaves, with what its rounding makes of it, twice: it was added once. */
  readonly size: number;
  /** The leaving value times that, and its |terms|. */
  readonly spread: Float64Array;
  readonly terms: Float64Array;
}

/**
 * Relative to the largest logit of the window: L the weight that leaves, R the one that arrives, d the sum before and
 * after. error' = (error d_old + 2 u max(d_old, L) + u R) / d_new.
 */
export function changeOf(
  row: Row,
  query: Float32Array,
  { key }: RingTensors,
  { headDim }: RingAxes,
  head: number,
  { full }: Turn,
  leaving: { key: Float32Array; value: Float32Array },
  error: number,
  scale: number,
): Change {
  const arrived = Math.exp(logitOf(query, key.subarray(head * headDim, (head + 1) * headDim), scale).logit - row.base);
  const left = full ? logitOf(query, leaving.key, scale) : { logit: Number.NEGATIVE_INFINITY, size: 0 };
  const weight = Math.exp(left.logit - row.base);
  const before = row.sum - arrived + weight;
  const carried = (error * before) / row.sum;
  const finite = row.finite && row.values.every(Number.isFinite) && !(full && !Number.isFinite(left.logit));
  const size = 2 * weight * (1 + left.size);
  const sizes = Float64Array.from(leaving.value, (value) => (full ? Math.abs(value) : 0));
  return {
    error: finite ? carried + (2 * unit * Math.max(before, weight) + unit * arrived) / row.sum : Number.NaN,
    carried,
    size,
    spread: sizes.map((value) => size * value),
    terms: sizes.map((value) => weight * value),
  };
}

/** Sum of |terms|: those that cancel too, and what a row is known to carry, in steps of rounding. */
function magnitudeOf(row: Row, change: Change | undefined, d: number, steps: number): number {
  const [terms, spread] = [row.terms[d] as number, row.spread[d] as number];
  if (!change) return (spread + (terms * row.size) / row.sum) / row.sum;
  const cancelling = (spread + (change.spread[d] as number) + (terms * (row.size + change.size)) / row.sum) / row.sum;
  return cancelling + (change.carried * (2 * terms + (change.terms[d] as number))) / (row.sum * steps * unit);
}

/** Weighted values and sum of weights relative to 2^power; a row that is not finite is kept as one that must be refused. */
export function store(kept: Float32Array, row: Row, error: number): void {
  const headDim = kept.length - rowExtra;
  const finite = row.finite && row.values.every(Number.isFinite);
  const power = Math.round(row.base * Math.LOG2E);
  const factor = Math.exp(row.base - power * Math.LN2);
  for (let d = 0; d < headDim; d++) kept[d] = finite ? (row.values[d] as number) * factor : 0;
  kept[headDim] = finite ? power : 0;
  kept[headDim + 1] = finite ? row.sum * factor : 0;
  kept[headDim + 2] = finite ? error : Number.POSITIVE_INFINITY;
}
