/**
 * How far results may lie from what ONNX's files expect: the formula of docs/tolerances.md, twice. Once for Hotset, with the
 * roundings that its ops state; once for whoever made the files, who computed the same sums in the case's own type.
 *
 * The sums of |terms|: of a logit those of its products; of an output sum_t p_t |v_t| twice (it, and the sum of weights), and
 * what an error of its logit makes of each weight, p_t (1 + |terms of logit t|) |v_t - out|. So a softmax that one token has
 * to itself leaves no room for another.
 */
import { f16ToNumber } from "@hotset/core";
import { toleranceOf } from "@hotset/core/testing/cases";
import { biasAt, type Problem } from "./problem.js";

/** Sums of |terms|, where queries, keys and values are themselves sums; laid out as the numbers are. */
export interface Origins {
  readonly queries: Float64Array;
  /** Of the new tokens, [batch, tokens, kvHeads, width]: only where there is no past. */
  readonly keys: Float64Array;
  readonly values: Float64Array;
  /** Roundings that each of them carries. */
  readonly steps: number;
}

export interface Magnitudes {
  /** [batch, rows, queryHeads, valueDim] */
  readonly out: Float64Array;
  /** [batch, queryHeads, rows, tokens], of the weights after the softmax. */
  readonly weights: Float64Array;
  /** The same, of the logits with what is added to them. */
  readonly logits: Float64Array;
}

export function magnitudes(problem: Problem, origins?: Origins): Magnitudes {
  const { sizes, cache, queries, scale, softCap, seen, bias } = problem;
  const { batch, rows, tokens, queryHeads, kvHeads, headDim, valueDim } = sizes;
  const number = (data: Float32Array | Uint16Array, at: number): number =>
    cache.dtype === "f32" ? (data[at] as number) : f16ToNumber(data[at] as number);
  const out = new Float64Array(batch * rows * queryHeads * valueDim);
  const weights = new Float64Array(batch * queryHeads * rows * tokens);
  const logits = new Float64Array(weights.length);
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < queryHeads; h++)
      for (let row = 0; row < rows; row++) {
        const kvHead = Math.floor((h * kvHeads) / queryHeads);
        const query = ((b * rows + row) * queryHeads + h) * headDim;
        const at = ((b * queryHeads + h) * rows + row) * tokens;
        const logit = new Float64Array(tokens).fill(Number.NEGATIVE_INFINITY);
        for (let t = 0; t < tokens; t++) {
          const key = ((b * kvHeads + kvHead) * cache.capacity + t) * headDim;
          const fresh = ((b * tokens + t) * kvHeads + kvHead) * headDim;
          let [sum, size] = [0, 0];
          for (let i = 0; i < headDim; i++) {
            const [q, k] = [queries[query + i] as number, number(cache.keys, key + i)];
            sum += q * k;
            size += origins ? (origins.queries[query + i] as number) * (origins.keys[fresh + i] as number) : Math.abs(q * k);
          }
          const added = bias ? biasAt(sizes, bias, b, h, row, t) : 0;
          const value = softCap > 0 ? softCap * Math.tanh((sum * scale) / softCap) : sum * scale;
          logits[at + t] = size * Math.abs(scale) + (Number.isFinite(added) ? Math.abs(added) : 0);
          if (t < (seen[b * rows + row] as number)) logit[t] = value + added;
        }
        const largest = logit.reduce((a, one) => Math.max(a, one), Number.NEGATIVE_INFINITY);
        if (largest === Number.NEGATIVE_INFINITY) continue;
        const weight = logit.map((one) => (one === Number.NEGATIVE_INFINITY ? 0 : Math.exp(one - largest)));
        const sum = weight.reduce((a, one) => a + one, 0);
        const share = weight.map((one) => one / sum);
        const unsure = share.map((p, t) => (p === 0 ? 0 : p * (1 + (logits[at + t] as number))));
        const spread = unsure.reduce((a, one) => a + one, 0);
        for (const [t, p] of share.entries())
          weights[at + t] = (unsure[t] as number) * (1 - p) + p * (spread - (unsure[t] as number)) + 2 * p;
        for (let d = 0; d < valueDim; d++) {
          const values = share.map((p, t) =>
            p > 0 ? number(cache.values, ((b * kvHeads + kvHead) * cache.capacity + t) * valueDim + d) : 0,
          );
          const mean = share.reduce((a, p, t) => a + p * (values[t] as number), 0);
          let size = 0;
          for (const [t, p] of share.entries()) {
            const value = values[t] as number;
            const term =
              origins && p > 0 ? (origins.values[((b * tokens + t) * kvHeads + kvHead) * valueDim + d] as number) : Math.abs(value);
            size += (unsure[t] as number) * Math.abs(value - mean) + 2 * p * term;
          }
          out[((b * rows + row) * queryHeads + h) * valueDim + d] = size;
        }
      }
  return { out, weights, logits };
}

/** What the maker of the files did: roundings of f32 and of the case's type behind each value. */
export interface Maker {
  /** Unit roundoff of the type that it computed in. */
  readonly unit: number;
  readonly tokens: number;
  readonly headDim: number;
}

/**
 * NumPy, whose results the files are, adds in f32 also for float16. What is stored between is rounded to the type: two scales,
 * the product, the cap (3), the bias, the difference, the exponential, the sum, the division, the last product.
 */
export const within = (magnitude: Float64Array, steps: number, { unit, tokens, headDim }: Maker): Float64Array =>
  magnitude.map((size) => toleranceOf("f32", steps + headDim + tokens + 32, 0, size) + (unit > 2 ** -24 ? 12 * unit * size : 0));
