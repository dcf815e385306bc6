/** Records of made-up attention: layers whose keys and queries are alike, with the dense output. */
import type { attention } from "@hotset/core";
import type { Random } from "@hotset/core/testing";

interface Sizes {
  layers: number;
  tokens: number;
  queryHeads: number;
  kvHeads: number;
  headDim: number;
}

export function attentionRecord(random: Random, { layers, tokens, queryHeads, kvHeads, headDim }: Sizes): attention.AttentionRecord {
  const normal = (count: number) => random.values(count, () => 1.5 * random.normal());
  const sharedQueries = normal(tokens * queryHeads * headDim);
  const sharedKeys = normal(tokens * kvHeads * headDim);
  const blend = (a: Float32Array, b: Float32Array) => Float32Array.from(a, (value, i) => 0.8 * value + 0.6 * (b[i] as number));
  return {
    queryHeads,
    kvHeads,
    headDim,
    tokens,
    layers: Array.from({ length: layers }, () => {
      const queries = blend(sharedQueries, normal(sharedQueries.length));
      const keys = blend(sharedKeys, normal(sharedKeys.length));
      const values = normal(sharedKeys.length);
      const out = new Float32Array(queries.length);
      for (let at = 0; at < tokens; at++)
        for (let head = 0; head < queryHeads; head++) {
          const kvHead = Math.floor((head * kvHeads) / queryHeads);
          const logits = Array.from({ length: at + 1 }, (_, t) => {
            let dot = 0;
            for (let i = 0; i < headDim; i++)
              dot += (queries[(at * queryHeads + head) * headDim + i] as number) * (keys[(t * kvHeads + kvHead) * headDim + i] as number);
            return dot / Math.sqrt(headDim);
          });
          const largest = Math.max(...logits);
          const weights = logits.map((logit) => Math.exp(logit - largest));
          const sum = weights.reduce((a, b) => a + b, 0);
          for (let i = 0; i < headDim; i++)
            out[(at * queryHeads + head) * headDim + i] = weights.reduce(
              (all, weight, t) => all + (weight / sum) * (values[(t * kvHeads + kvHead) * headDim + i] as number),
              0,
            );
        }
      return { queries, keys, values, out };
    }),
  };
}
