import { canonicalExp } from "../../op/canonical.js";
import type { ReferenceCall } from "../../op/define.js";
import { uniformAt } from "./uniform.js";

export interface SampleTensors {
  logits: Float32Array;
  seeds: Uint32Array;
  positions: Uint32Array;
  ids: Int32Array;
  kept: Uint32Array;
}

export type SampleScalars = Record<"temperature" | "topK" | "topP" | "minP", number>;

/** Draws one token from softmax(logits / temperature) cut to the k best, then to mass p, then to a share of the best. */
export function reference({ axes, tensors, scalars }: ReferenceCall): void {
  const { rows, vocab } = axes as Record<"rows" | "vocab", number>;
  const { logits, seeds, positions, ids, kept } = tensors as SampleTensors;
  for (let row = 0; row < rows; row++) {
    const own = logits.subarray(row * vocab, (row + 1) * vocab);
    const set = keptTokens(own, scalars as SampleScalars);
    kept[row] = set.length;
    let total = 0;
    for (const { weight } of set) total += weight;
    const target = uniformAt(seeds[row] as number, positions[row] as number) * total;
    let passed = 0;
    let chosen = -1;
    for (const { id, weight } of set) {
      passed += weight;
      chosen = id;
      if (passed > target) break;
    }
    ids[row] = chosen;
  }
}

interface Candidate {
  readonly id: number;
  readonly logit: number;
  readonly weight: number;
}

/** The tokens that may be drawn, by id. */
function keptTokens(logits: Float32Array, { temperature, topK, topP, minP }: SampleScalars): Candidate[] {
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > largest) largest = logit;
  if (largest === Number.NEGATIVE_INFINITY) return [];
  const all: Candidate[] = [];
  for (const [id, logit] of logits.entries()) {
    // Infinity over infinity weighs 1; all the rest is nothing beside it.
    const weight = logit === largest ? 1 : temperature === 0 ? 0 : canonicalExp((logit - largest) / temperature);
    if (weight > 0) all.push({ id, logit, weight });
  }
  const byRank = [...all].sort((a, b) => b.logit - a.logit || a.id - b.id);
  const best = byRank.slice(0, temperature === 0 ? 1 : topK === 0 ? byRank.length : topK);
  let last = best.length;
  if (topP < 1) {
    let total = 0;
    for (const { weight } of [...best].sort((a, b) => a.id - b.id)) total += weight;
    let mass = 0;
    for (last = 0; last < best.length && (last === 0 || mass < topP * total); last++) mass += (best[last] as Candidate).weight;
  }
  return best
    .slice(0, last)
    .filter(({ weight }) => weight >= minP)
    .sort((a, b) => a.id - b.id);
}
