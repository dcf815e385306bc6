import { canonicalExp } from "../../op/canonical.js";
import type { ReferenceCall } from "../../op/define.js";

export interface RouteTensors {
  logits: Float32Array;
  bias?: Float32Array;
  ids: Int32Array;
  weights: Float32Array;
}

export type RouteAxes = Record<"tokens" | "experts" | "topK" | "groups" | "keptGroups", number>;

/** ids = top-k of z or s + bias;  weight = scale s / (sum of the chosen s + 1e-20), with s = softmax(z) or sigmoid(z). */
export function reference({ axes, variant, tensors, scalars, magnitude }: ReferenceCall): void {
  const { tokens, experts, topK } = axes as RouteAxes;
  const { logits, bias, ids, weights } = tensors as RouteTensors;
  for (let t = 0; t < tokens; t++) {
    const row = logits.subarray(t * experts, (t + 1) * experts);
    const z = Array.from(row, (value) => (Number.isNaN(value) ? Number.NEGATIVE_INFINITY : value));
    const scores = variant.score === "softmax" ? softmax(z) : z.map(sigmoid);
    const compared = bias ? scores.map((s, e) => orLeast(s + (bias[e] as number))) : z;
    const chosen = best(compared, allowed(compared, axes as RouteAxes, bias !== undefined), topK);
    let sum = 0;
    for (const e of chosen) sum += scores[e] as number;
    const largest = Math.max(...z.filter(Number.isFinite).map(Math.abs), 0);
    chosen.forEach((e, k) => {
      const share = variant.renormalise ? (scores[e] as number) / (sum + 1e-20) : (scores[e] as number);
      const weight = row.some(Number.isNaN) ? Number.NaN : share * (scalars.scale as number);
      ids[t * topK + k] = e;
      weights[t * topK + k] = weight;
      if (magnitude?.weights) magnitude.weights[t * topK + k] = Math.abs(weight) * (2 + 2 * largest);
    });
  }
}

/** Sums in the order of the experts. Equal logits, infinite ones too, have difference 0. */
function softmax(z: readonly number[]): number[] {
  const largest = z.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const powers = z.map((value) => canonicalExp(value === largest ? 0 : value - largest));
  let sum = 0;
  for (const power of powers) sum += power;
  return powers.map((power) => power / sum);
}

/** 1 / (1 + exp(-z)), by exponentials of at most 0. */
function sigmoid(z: number): number {
  const power = canonicalExp(-Math.abs(z));
  return (z >= 0 ? 1 : power) / (1 + power);
}

const orLeast = (value: number): number => (Number.isNaN(value) ? Number.NEGATIVE_INFINITY : value);

/** The experts of the groups that are kept, in rising order. */
function allowed(compared: readonly number[], { experts, groups, keptGroups }: RouteAxes, sums: boolean): number[] {
  const size = experts / groups;
  const worth = Array.from({ length: groups }, (_, group) => {
    const [first, second] = best(compared, range(group * size, (group + 1) * size), 2);
    const top = compared[first as number] as number;
    return sums && second !== undefined ? orLeast(top + (compared[second] as number)) : top;
  });
  return best(worth, range(0, groups), keptGroups)
    .sort((a, b) => a - b)
    .flatMap((group) => range(group * size, (group + 1) * size));
}

/** The k of the candidates with the highest values, of equals the lower number first. */
const best = (values: readonly number[], candidates: readonly number[], k: number): number[] =>
  [...candidates].sort((a, b) => compare(values[b] as number, values[a] as number) || a - b).slice(0, k);

/** The difference of two infinities is no number. */
const compare = (a: number, b: number): number => (a < b ? -1 : a > b ? 1 : 0);

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);
