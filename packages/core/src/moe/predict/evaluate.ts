import { Random } from "../../testing/random.js";
import type { MoeTrace, Sequence } from "../trace/trace.js";
import { featureBlocks, unknownToken } from "./features.js";
import { RidgePredictor, type RidgePredictorSettings } from "./ridge-predictor.js";

/**
 * What predicts a token's experts before its first layer: the experts of the token `previous`, a fading mean (`ema`) or the
 * `frequency` of the sequence so far, the mean path of its `token`'s vocabulary number or of that after the same token (`pair`), or
 * all of these by `ridge` regression.
 */
export const predictors = ["previous", "ema", "frequency", "token", "pair", "ridge"] as const;
export type PredictorName = (typeof predictors)[number];

export interface PredictionQuality {
  readonly predictor: PredictorName;
  /** Share of the experts used that are among the topK, and the 2 topK, of highest score; mean over held-out tokens, layers and splits. */
  readonly recallAtK: number;
  readonly recallAt2K: number;
  /** The same of each split. */
  readonly splits: readonly { readonly recallAtK: number; readonly recallAt2K: number }[];
}

export interface EvaluateSettings extends Omit<RidgePredictorSettings, "progress"> {
  /** Splits of the sequences; default 3. */
  readonly splits?: number;
  readonly progress?: (done: number, total: number) => void | Promise<void>;
}

/** Three tenths of the sequences (at least one) to judge on, the rest to fit on. The same number gives the same split. */
export function splitSequences({ sequences }: MoeTrace, split: number): { fitted: Sequence[]; held: Sequence[] } {
  const random = new Random(`split ${split}`);
  const order = sequences.map((sequence) => ({ sequence, key: random.uniform() })).sort((a, b) => a.key - b.key);
  const held = Math.max(1, Math.round(0.3 * order.length));
  return { held: order.slice(0, held).map(({ sequence }) => sequence), fitted: order.slice(held).map(({ sequence }) => sequence) };
}

/** How well predictors do on sequences that they were not fitted on. */
export async function evaluatePredictors(
  trace: MoeTrace,
  names: readonly PredictorName[] = predictors,
  { splits = 3, progress, ...settings }: EvaluateSettings = {},
): Promise<PredictionQuality[]> {
  const found = names.map(() => [] as { recallAtK: number; recallAt2K: number }[]);
  for (let split = 0; split < splits; split++) {
    const { fitted, held } = splitSequences(trace, split);
    const predictor = await RidgePredictor.fit(trace, fitted, {
      ...settings,
      progress: (layer, layers) => progress?.(split * layers + layer, splits * layers),
    });
    judge(trace, held, predictor, names).forEach((recall, i) => {
      found[i]?.push(recall);
    });
  }
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  return names.map((predictor, i) => {
    const each = found[i] as { recallAtK: number; recallAt2K: number }[];
    return {
      predictor,
      recallAtK: mean(each.map(({ recallAtK }) => recallAtK)),
      recallAt2K: mean(each.map(({ recallAt2K }) => recallAt2K)),
      splits: each,
    };
  });
}

function judge(trace: MoeTrace, held: readonly Sequence[], predictor: RidgePredictor, names: readonly PredictorName[]) {
  const { layers, experts, topK, ids, tokenIds } = trace;
  const hits = names.map(() => [0, 0] as [number, number]);
  let used = 0;
  for (const { start, length } of held) {
    predictor.reset();
    for (let t = start; t < start + length; t++) {
      const token = tokenIds?.[t] ?? unknownToken;
      const scores = names.includes("ridge") ? predictor.scores(token) : undefined;
      for (let layer = 0; layer < layers; layer++) {
        const row = ids.subarray((t * layers + layer) * topK, (t * layers + layer + 1) * topK);
        const features = predictor.features(layer, token);
        names.forEach((name, i) => {
          const [values, at] = name === "ridge" ? [scores as Float32Array, layer * experts] : [features, featureBlocks[name] * experts];
          const count = hits[i] as [number, number];
          for (let k = 0; k < topK; k++) {
            const rank = rankOf(values, at, experts, row[k] as number);
            if (rank < topK) count[0]++;
            if (rank < 2 * topK) count[1]++;
          }
        });
      }
      used += layers * topK;
      predictor.observe(ids.subarray(t * layers * topK, (t + 1) * layers * topK), token);
    }
  }
  return hits.map(([atK, at2K]) => ({ recallAtK: used === 0 ? 0 : atK / used, recallAt2K: used === 0 ? 0 : at2K / used }));
}

/** How many experts have a higher score; of equals, those with a lower number come first. */
function rankOf(scores: Float32Array, at: number, experts: number, expert: number): number {
  const own = scores[at + expert] as number;
  let rank = 0;
  for (let e = 0; e < experts; e++) {
    const other = scores[at + e] as number;
    if (other > own || (other === own && e < expert)) rank++;
  }
  return rank;
}
