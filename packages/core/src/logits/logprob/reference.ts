import type { ReferenceCall } from "../../op/define.js";

export interface LogprobTensors {
  logits: Float32Array;
  targets: Int32Array;
  against?: Float32Array;
  chosen: Float32Array;
  entropy: Float32Array;
  ids: Int32Array;
  best: Float32Array;
  kl?: Float32Array;
}

export type LogprobAxes = Record<"tokens" | "vocab" | "k", number>;

/** Below this, relative to the largest logit, a token counts as none in sums of p times something. */
export const faintest = -87;

/** p = softmax(logits): ln p_target;  H = -sum p ln p;  the k largest ln p;  KL = sum p (ln p - ln q), q = softmax(against). */
export function reference({ axes, tensors, magnitude, fail }: ReferenceCall): void {
  const { tokens, vocab, k } = axes as LogprobAxes;
  const { logits, targets, against, chosen, entropy, ids, best, kl } = tensors as LogprobTensors;
  for (let t = 0; t < tokens; t++) {
    const row = logits.subarray(t * vocab, (t + 1) * vocab);
    const other = against?.subarray(t * vocab, (t + 1) * vocab);
    const p = weigh(row);
    const q = other && weigh(other);
    const target = targets[t] as number;
    if (target < -1 || target >= vocab) fail("targets", t, target);
    chosen[t] = target >= 0 && target < vocab ? (row[target] as number) - p.logSum : 0;
    // What a rounding of the logits makes of the log-sum.
    const unsure = p.spread + Math.abs(p.largest) + Math.abs(p.logSum);
    if (magnitude?.chosen && target >= 0 && target < vocab) magnitude.chosen[t] = Math.abs(row[target] as number) + unsure;

    let [mean, ratio, meanSize, ratioSize] = [0, 0, 0, 0];
    for (let i = 0; i < vocab; i++) {
      const logit = row[i] as number;
      if (Math.fround(logit - p.largest) <= faintest) continue;
      const weight = Math.exp(logit - p.logSum);
      const size = 1 + Math.abs(logit) + Math.abs(p.largest);
      mean += weight * (logit - p.logSum);
      meanSize += weight * size * (1 + size);
      if (!other) continue;
      ratio += weight * (logit - (other[i] as number));
      ratioSize += weight * size * (1 + Math.abs(logit) + Math.abs(other[i] as number));
    }
    entropy[t] = -mean;
    if (magnitude?.entropy) magnitude.entropy[t] = meanSize + unsure;
    if (kl && q) {
      kl[t] = ratio - p.logSum + q.logSum;
      if (magnitude?.kl) magnitude.kl[t] = ratioSize + unsure * (1 + Math.abs(ratio)) + q.spread + Math.abs(q.largest) + Math.abs(q.logSum);
    }
    const ranked = [...row.keys()].filter((i) => !Number.isNaN(row[i])).sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
    for (let i = 0; i < k; i++) {
      const id = ranked[i] ?? -1;
      ids[t * k + i] = id;
      best[t * k + i] = id < 0 ? Number.NEGATIVE_INFINITY : (row[id] as number) - p.logSum;
      if (magnitude?.best && id >= 0) magnitude.best[t * k + i] = Math.abs(row[id] as number) + unsure;
    }
  }
}

function weigh(row: Float32Array): { largest: number; logSum: number; spread: number } {
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of row) if (logit > largest) largest = logit;
  let [sum, spread] = [0, 0];
  for (const logit of row) {
    const weight = Math.exp(logit - largest);
    sum += weight;
    if (weight > 0) spread += weight * (1 + Math.abs(logit) + Math.abs(largest));
  }
  return { largest, logSum: largest + Math.log(sum), spread: spread / sum };
}
