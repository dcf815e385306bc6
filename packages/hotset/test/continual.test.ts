/** Streams of thousands of steps through attention/continual-retroactive: how far answers drift, and how many rows the guard refuses. */

import { Random } from "@hotset/core/testing/cases";
import { attention, findHotset } from "hotset";
import { afterAll, describe, expect, it } from "vitest";

const hotset = await findHotset();
afterAll(() => hotset.dispose());

const window = 64;
const dim = 64;
const tolerance = Math.fround(1e-5);

/** The tokens of a stream; row n of each is the one that arrives as number n. */
interface Tokens {
  readonly query: Float32Array;
  readonly key: Float32Array;
  readonly value: Float32Array;
}

function tokensOf(spread: number, steps: number): Tokens {
  const random = new Random(`a stream of deviation ${spread}`);
  const rows = (size: number) => random.values(steps * dim, () => size * random.normal());
  return { query: rows(spread), key: rows(1), value: rows(1) };
}

/** All answers after `arrived` tokens, in f64. */
function answers({ query, key, value }: Tokens, arrived: number): Float64Array {
  const first = Math.max(0, arrived - window);
  const out = new Float64Array(window * dim);
  const weights = new Float64Array(window);
  for (let row = first; row < arrived; row++) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let t = first; t < arrived; t++) {
      let sum = 0;
      for (let d = 0; d < dim; d++) sum += (query[row * dim + d] as number) * (key[t * dim + d] as number);
      weights[t - first] = sum / 8;
      largest = Math.max(largest, sum / 8);
    }
    let sum = 0;
    for (let t = 0; t < arrived - first; t++) sum += weights[t] = Math.exp((weights[t] as number) - largest);
    for (let t = 0; t < arrived - first; t++)
      for (let d = 0, at = (row - first) * dim; d < dim; d++, at++)
        out[at] = (out[at] as number) + ((weights[t] as number) / sum) * (value[(first + t) * dim + d] as number);
  }
  return out;
}

/** Deviation of the logits, and the largest error that is tolerated there: the estimate is no bound where logits are large. */
const streams = [
  [1, 1e-5],
  [4, 1e-4],
  [16, 1e-4],
  [36, 1e-4],
] as const;
// js computes every row anew, in f64: fewer steps of that say as much.
const lengths = { js: 130, native: 3000, wasm: 3000 } as const;
const present = (Object.keys(lengths) as (keyof typeof lengths)[]).filter((id) => hotset.backends.some((backend) => backend.id === id));

describe.each(streams)("a stream whose logits have a deviation of %i", (spread, most) => {
  const tokens = tokensOf(spread, 3000);
  const truth = new Map<number, Float64Array>();

  it.each(present)(`stays within ${most} of a softmax in f64 (%s)`, (backend) => {
    const plan = hotset.planSync(attention.continualRetroactive, { streams: 1, heads: 1, window, headDim: dim }, {}, { backend });
    const ring = () => new Float32Array(window * dim).fill(Number.NaN);
    const newest = { query: new Float32Array(dim), key: new Float32Array(dim), value: new Float32Array(dim) };
    const rows = new Float32Array(window * (dim + 3)).fill(Number.NaN);
    const state = { keyRing: ring(), valueRing: ring(), queryRing: ring(), rows, steps: new Int32Array(1) };
    const step = plan.bind({ ...newest, ...state }, {}, { tolerance });
    let [worst, refused, updated, estimate] = [0, 0, 0, 0];
    for (let n = 0; n < lengths[backend]; n++) {
      for (const port of ["query", "key", "value"] as const) newest[port].set(tokens[port].subarray(n * dim, (n + 1) * dim));
      const { out, error, recomputed } = step.run();
      refused += recomputed[0] as number;
      updated += Math.min(n, window - 1);
      estimate = Math.max(estimate, error[0] as number);
      if (n % 11 !== 0 && n !== lengths[backend] - 1 && n > 3) continue;
      const exact = truth.get(n) ?? answers(tokens, n + 1);
      truth.set(n, exact);
      for (let i = 0; i < out.length; i++)
        worst = Math.max(worst, Math.abs((out[i] as number) - (exact[i] as number)), Number.isNaN(out[i]) ? Number.POSITIVE_INFINITY : 0);
    }
    step.dispose();
    console.log(
      `deviation ${spread}, ${backend}, ${lengths[backend]} steps: largest error ${worst.toExponential(1)}, ${((100 * refused) / updated).toFixed(2)} % of the rows refused`,
    );
    expect(worst).toBeLessThan(most);
    expect(estimate).toBeLessThan(tolerance);
    expect(refused / updated).toBeLessThan(0.04);
    // The guard is at work: a row of 64 steps carries 63 roundings of its sum, or less than half of what refuses it.
    if (spread >= 4) expect(refused).toBeGreaterThan(0);
  });
});
