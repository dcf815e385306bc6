import { HotsetError } from "../../errors.js";
import { Random } from "../../testing/random.js";
import { idArray, type MoeTrace } from "./trace.js";

export interface SyntheticTraceSettings {
  /** Any text: the same seed makes the same trace. */
  readonly seed: string;
  readonly layers: number;
  readonly experts: number;
  readonly topK: number;
  readonly sequences: number;
  /** Tokens of each sequence. */
  readonly length: number;
  /** Exponent of the experts' popularity: the r-th of a layer is used with weight 1 / r^skew. 0 is uniform; default 0.6. */
  readonly skew?: number;
  /** Chance that an expert of the token before is used again; default 0.3. */
  readonly sticky?: number;
  /** Vocabulary; each token has experts of its own, used with chance `bound`. Default 64 and 0.4. */
  readonly vocabulary?: number;
  readonly bound?: number;
}

/**
 * A trace with known habits, for tests and examples: popular experts (skew), experts kept from token to token
 * (sticky), experts bound to a token's vocabulary number. Not a model of any router: figures on it say nothing about real ones.
 */
export function syntheticMoeTrace(settings: SyntheticTraceSettings): MoeTrace {
  const { seed, layers, experts, topK, sequences, length, skew = 0.6, sticky = 0.3, vocabulary = 64, bound = 0.4 } = settings;
  if (topK > experts || topK < 1)
    throw new HotsetError("argument", { where: "syntheticMoeTrace", expected: `topK from 1 to ${experts}`, received: `${topK}` });
  const random = new Random(seed);
  const tokens = sequences * length;
  const ids = idArray(experts, tokens * layers * topK);
  const tokenIds = new Uint32Array(tokens);
  const popular = Array.from({ length: layers }, () => shuffled(experts, random));
  const own = Array.from({ length: layers }, () => Array.from({ length: vocabulary }, () => shuffled(experts, random).slice(0, topK)));
  // 1 / r^skew from + - x / only where skew is whole; engines agree on powers to far more than a draw shows.
  const weights = Float64Array.from({ length: experts }, (_, rank) => (rank + 1) ** -skew);
  const total = weights.reduce((a, b) => a + b, 0);
  const drawn = (layer: number): number => {
    let rest = random.uniform() * total;
    let rank = 0;
    while (rank < experts - 1 && rest >= (weights[rank] as number)) rest -= weights[rank++] as number;
    return (popular[layer] as number[])[rank] as number;
  };
  for (let t = 0; t < tokens; t++) {
    const token = random.below(vocabulary);
    tokenIds[t] = token;
    for (let layer = 0; layer < layers; layer++) {
      const at = (t * layers + layer) * topK;
      const used = new Set<number>();
      for (let k = 0; k < topK; k++) {
        const choice = random.uniform();
        let expert = drawn(layer);
        if (t % length > 0 && choice < sticky) expert = ids[at - layers * topK + k] as number;
        else if (choice < sticky + (1 - sticky) * bound) expert = own[layer]?.[token]?.[k] as number;
        while (used.has(expert)) expert = (expert + 1) % experts;
        used.add(expert);
        ids[at + k] = expert;
      }
    }
  }
  const runs = Array.from({ length: sequences }, (_, i) => ({ start: i * length, length }));
  return { model: `synthetic (${seed})`, layers, experts, topK, tokens, sequences: runs, ids, tokenIds };
}

function shuffled(n: number, random: Random): number[] {
  const list = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [list[i], list[j]] = [list[j] as number, list[i] as number];
  }
  return list;
}
