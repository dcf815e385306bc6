/** What a stream's ring holds: shared by both continual ops, their cases and laws. */
import { axis, dim, inout, input, scalar } from "../../op/define.js";

export type RingAxes = Record<"streams" | "heads" | "window" | "headDim", number>;
export interface RingTensors {
  query: Float32Array;
  key: Float32Array;
  value: Float32Array;
  keyRing: Float32Array;
  valueRing: Float32Array;
  steps: Int32Array;
}

export const ringAxes = {
  streams: axis("streams that step together", { live: true }),
  heads: axis("attention heads", { min: 1, max: 65536 }),
  window: axis("newest tokens that are attended to", { min: 1, max: 2 ** 20 }),
  headDim: axis("components of a query, a key and a value", { min: 1, max: 1024 }),
};

const state = ["streams", "heads", "window", "headDim"] as const;
export const ringPorts = {
  query: input("f32", ["streams", "heads", "headDim"], "the newest token's query"),
  key: input("f32", ["streams", "heads", "headDim"], "its key"),
  value: input("f32", ["streams", "heads", "headDim"], "its value"),
  keyRing: inout("f32", state, "the keys of the window"),
  valueRing: inout("f32", state, "the values of the window"),
};
export const stepsPort = inout("i32", ["streams"], "how many have arrived: 0 at first, from 2 * window on less a window", {
  indexInto: dim("window", { times: 2 }),
});
export const scalePort = scalar("f32", "what q k is multiplied by", { default: ({ headDim }) => 1 / Math.sqrt(headDim as number) });

/** Where a stream stands when a token arrives, or undefined where `steps` cannot be. */
export interface Turn {
  /** Where the token goes; the one that lies there leaves, if the ring is full. */
  readonly slot: number;
  readonly full: boolean;
  /** Tokens of the window with it. */
  readonly held: number;
  /** The slot of the oldest of them. */
  readonly oldest: number;
  /** `steps` afterwards. */
  readonly next: number;
}

export function turnOf(steps: number, window: number): Turn | undefined {
  if (steps < 0 || steps >= 2 * window) return undefined;
  const full = steps >= window;
  const slot = steps % window;
  const next = steps + 1 === 2 * window ? window : steps + 1;
  return { slot, full, held: full ? window : steps + 1, oldest: full ? (slot + 1) % window : 0, next };
}

/** Puts the newest key and value of one head into its ring; what left, if anything did, comes back. */
export function insert(tensors: RingTensors, { window, headDim }: RingAxes, head: number, { slot }: Turn) {
  const at = (head * window + slot) * headDim;
  const leaving = { key: tensors.keyRing.slice(at, at + headDim), value: tensors.valueRing.slice(at, at + headDim) };
  tensors.keyRing.set(tensors.key.subarray(head * headDim, (head + 1) * headDim), at);
  tensors.valueRing.set(tensors.value.subarray(head * headDim, (head + 1) * headDim), at);
  return leaving;
}

/** scale * q k, and the sum of its |terms|. */
export function logitOf(query: Float32Array, key: Float32Array, scale: number): { logit: number; size: number } {
  let [sum, size] = [0, 0];
  for (let i = 0; i < query.length; i++) {
    const term = (query[i] as number) * (key[i] as number);
    sum += term;
    size += Math.abs(term);
  }
  return { logit: sum * scale, size: size * Math.abs(scale) };
}

/** The softmax of one query over the tokens a ring holds, unnormalised: everything is relative to exp(base). */
export interface Row {
  readonly base: number;
  readonly sum: number;
  readonly values: Float64Array;
  /** The sum with what the rounding of each logit makes of its weight; the same of the values; and their |terms|. */
  readonly size: number;
  readonly spread: Float64Array;
  readonly terms: Float64Array;
  /** All logits are finite. */
  readonly finite: boolean;
}

export function attend(
  query: Float32Array,
  { keyRing, valueRing }: RingTensors,
  axes: RingAxes,
  head: number,
  held: number,
  scale: number,
): Row {
  const { window, headDim } = axes;
  const first = head * window * headDim;
  const [logits, unsure] = [new Float64Array(held), new Float64Array(held)];
  let [base, finite] = [Number.NEGATIVE_INFINITY, true];
  for (let t = 0, at = first; t < held; t++, at += headDim) {
    let [dot, terms] = [0, 0];
    for (let d = 0; d < headDim; d++) {
      const term = (query[d] as number) * (keyRing[at + d] as number);
      dot += term;
      terms += Math.abs(term);
    }
    logits[t] = dot * scale;
    // What the rounding of a logit makes of its weight.
    unsure[t] = 1 + terms * Math.abs(scale);
    finite &&= Number.isFinite(logits[t]);
    base = Math.max(base, logits[t] as number);
  }
  const [values, spread, terms] = [new Float64Array(headDim), new Float64Array(headDim), new Float64Array(headDim)];
  let [sum, size] = [0, 0];
  for (let t = 0, at = first; t < held; t++, at += headDim) {
    const weight = Math.exp((logits[t] as number) - base);
    sum += weight;
    size += weight * (unsure[t] as number);
    for (let d = 0; d < headDim; d++) {
      const term = weight * (valueRing[at + d] as number);
      values[d] = (values[d] as number) + term;
      terms[d] = (terms[d] as number) + Math.abs(term);
      spread[d] = (spread[d] as number) + Math.abs(term) * (unsure[t] as number);
    }
  }
  return { base, sum, values, size, spread, terms, finite };
}

/** A component of the answer: NaN where it, or a logit, is not finite. */
export const component = (row: Row, d: number): number => {
  const value = (row.values[d] as number) / row.sum;
  return row.finite && Number.isFinite(value) ? value : Number.NaN;
};
