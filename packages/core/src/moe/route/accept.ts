import type { Judged } from "../../testing/case.js";
import { type RouteAxes, type RouteTensors, reference } from "./reference.js";

/**
 * Where bits may differ: experts chosen by logits are the reference's; by score and bias, any whose compared scores could be
 * in that order within the tolerance of a score. Weights are judged for the experts that were chosen.
 */
export function accept({ axes, variant, inputs, scalars, got, tolerance }: Judged): string | undefined {
  const { tokens, experts, topK } = axes as RouteAxes;
  const wanted = run(axes as RouteAxes, variant, scalars, inputs as unknown as RouteTensors);
  const { ids, weights } = got as unknown as RouteTensors;
  for (let t = 0; t < tokens; t++) {
    const row = (inputs as unknown as RouteTensors).logits.subarray(t * experts, (t + 1) * experts);
    const same = Array.from({ length: topK }, (_, k) => ids[t * topK + k] === wanted.ids[t * topK + k]).every(Boolean);
    if (!same && (!variant.bias || !close(t))) return `ids of token ${t} are ${list(ids, t)}, expected ${list(wanted.ids, t)}`;
    if (!same) continue;
    for (let k = 0; k < topK; k++) {
      const [value, expected] = [weights[t * topK + k] as number, wanted.weights[t * topK + k] as number];
      if (Object.is(value, expected) || value === expected || (Number.isNaN(value) && Number.isNaN(expected))) continue;
      const largest = row.reduce((a, z) => (Number.isFinite(z) ? Math.max(a, Math.abs(z)) : a), 0);
      const within = tolerance("weights", expected, Math.abs(expected) * (2 + 2 * largest));
      if (!(Math.abs(value - expected) <= within)) return `weights[${t * topK + k}] is ${value}, expected ${expected} within ${within}`;
    }
  }
  return undefined;

  function list(values: Int32Array, t: number): string {
    return [...values.subarray(t * topK, (t + 1) * topK)].join(", ");
  }

  /** Whether a bias moved by less than the tolerance of a score gives the choice that was made. */
  function close(t: number): boolean {
    const { logits, bias } = inputs as unknown as Required<RouteTensors>;
    const row = logits.slice(t * experts, (t + 1) * experts);
    const largest = row.reduce((a, z) => (Number.isFinite(z) ? Math.max(a, Math.abs(z)) : a), 0);
    const slack = 2 * tolerance("weights", 1, 2 + 2 * largest);
    const chosen = new Set(ids.subarray(t * topK, (t + 1) * topK));
    if (chosen.size !== topK) return false;
    const moved = bias.map((value, e) => (chosen.has(e) ? value + slack * (1 + Math.abs(value)) : value));
    const again = run({ ...(axes as RouteAxes), tokens: 1 }, variant, scalars, { logits: row, bias: moved } as RouteTensors);
    return again.ids.every((e) => chosen.has(e));
  }
}

function run(axes: RouteAxes, variant: Judged["variant"], scalars: Judged["scalars"], { logits, bias }: RouteTensors): RouteTensors {
  const ids = new Int32Array(axes.tokens * axes.topK);
  const weights = new Float32Array(ids.length);
  reference({ axes, variant, scalars, pitch: {}, tensors: { logits, bias, ids, weights }, fail() {} });
  return { logits, ids, weights };
}
