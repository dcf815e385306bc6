import { ShapeError } from "../../errors.js";
import { type KeptTokens, mustBeWhole, sameForAll } from "./kept.js";

export interface SnapKvMassesSettings {
  /** `[window, queryHeads, headDim]` queries of the last `window` tokens, rotated. */
  readonly queries: ArrayLike<number>;
  /** `[kvHeads, length, headDim]` all keys, rotated. */
  readonly keys: ArrayLike<number>;
  readonly window: number;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Tokens of the sequence, the window included. */
  readonly length: number;
  /** Default 1 / sqrt(headDim). */
  readonly scale?: number;
}

/**
 * What the last `window` queries attend to: `[kvHeads, length - window]`, the mean over the queries and over the heads
 * of a group of the causal softmax over all keys. Sums in f64.
 */
export function snapKvMasses(settings: SnapKvMassesSettings): Float64Array {
  const { queries, keys, window, queryHeads, kvHeads, headDim, length } = settings;
  const { scale = 1 / Math.sqrt(headDim) } = settings;
  mustBeWhole("snapKvMasses", "a window", window, 1);
  mustBeWhole("snapKvMasses", "a length", length, window, ", the window,");
  if (!(kvHeads >= 1) || queryHeads % kvHeads !== 0) throw wrongShape("queryHeads a multiple of kvHeads", `${queryHeads}, ${kvHeads}`);
  if (queries.length !== window * queryHeads * headDim) throw wrongShape(`${window * queryHeads * headDim} queries`, `${queries.length}`);
  if (keys.length !== kvHeads * length * headDim) throw wrongShape(`${kvHeads * length * headDim} keys`, `${keys.length}`);
  const [group, before] = [queryHeads / kvHeads, length - window];
  const masses = new Float64Array(kvHeads * before);
  const weights = new Float64Array(length);
  for (let q = 0; q < window; q++)
    for (let h = 0; h < queryHeads; h++) {
      const kvHead = Math.floor(h / group);
      const seen = before + q + 1;
      let largest = Number.NEGATIVE_INFINITY;
      for (let t = 0; t < seen; t++) {
        let dot = 0;
        for (let i = 0; i < headDim; i++)
          dot += (queries[(q * queryHeads + h) * headDim + i] as number) * (keys[(kvHead * length + t) * headDim + i] as number);
        weights[t] = dot * scale;
        largest = Math.max(largest, weights[t] as number);
      }
      let sum = 0;
      for (let t = 0; t < seen; t++) sum += weights[t] = Math.exp((weights[t] as number) - largest);
      for (let t = 0; t < before; t++)
        masses[kvHead * before + t] = (masses[kvHead * before + t] as number) + (weights[t] as number) / (sum * window * group);
    }
  return masses;
}

export interface SnapKvSettings {
  /** `[kvHeads, length - window]` as `snapKvMasses` gives them. */
  readonly masses: ArrayLike<number>;
  readonly length: number;
  readonly kvHeads: number;
  /** Tokens that stay in each head, the window included. */
  readonly budget: number;
  /** Last tokens that always stay; default 64. */
  readonly window?: number;
  /** Masses are averaged over this many neighbours, zeros beyond the ends; odd, default 5. */
  readonly kernel?: number;
}

/**
 * SnapKV (Li et al., arXiv 2404.14469): in each KV head the last `window` tokens and those before that the window's
 * queries attend to most, after pooling. Ties go to the earlier token; a NaN is the least. Where the budget is the
 * length or more, all tokens are kept.
 * Throws HotsetError where the budget is below the window, and ShapeError where the masses are not of that shape.
 */
export function snapKv({ masses, length, kvHeads, budget, window = 64, kernel = 5 }: SnapKvSettings): KeptTokens {
  mustBeWhole("snapKv", "kvHeads", kvHeads, 1);
  mustBeWhole("snapKv", "a window", window, 1);
  mustBeWhole("snapKv", "a length", length, window, ", the window,");
  mustBeWhole("snapKv", "a budget", budget, window, ", the window,");
  mustBeWhole("snapKv", "a kernel", kernel, 1);
  if (kernel % 2 === 0) throw wrongShape("an odd kernel", String(kernel));
  const before = length - window;
  if (masses.length !== kvHeads * before) throw wrongShape(`${kvHeads * before} masses`, `${masses.length}`);
  if (budget >= length)
    return sameForAll(
      Array.from({ length }, (_, token) => token),
      kvHeads,
    );
  const kept = new Int32Array(kvHeads * budget);
  const scores = new Float64Array(before);
  for (let head = 0; head < kvHeads; head++) {
    for (let t = 0; t < before; t++) {
      let sum = 0;
      for (let other = Math.max(0, t - (kernel >> 1)); other <= Math.min(before - 1, t + (kernel >> 1)); other++)
        sum += masses[head * before + other] as number;
      scores[t] = Number.isNaN(sum) ? Number.NEGATIVE_INFINITY : sum / kernel;
    }
    const best = Array.from(scores.keys()).sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
    const chosen = best.slice(0, budget - window).sort((a, b) => a - b);
    for (let i = 0; i < window; i++) chosen.push(before + i);
    kept.set(chosen, head * budget);
  }
  return { kept, keptCount: new Int32Array(kvHeads).fill(budget), maxKept: budget };
}

const wrongShape = (expected: string, received: string): ShapeError => new ShapeError({ where: "snapKv", expected, received });
