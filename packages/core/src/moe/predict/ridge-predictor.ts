import { describe, HotsetError } from "../../errors.js";
import { ridge } from "../../linalg/ridge/spec.js";
import type { MoeTrace, Sequence } from "../trace/trace.js";
import { featureBlocks, featureCount, PathTable, pairKey, RoutingHistory, tokenKeys, tokensOf, unknownToken } from "./features.js";

export interface RidgePredictorSettings {
  /** What the squares of the weights count; default 20. */
  readonly penalty?: number;
  /** Of the fading mean, a token; default 0.9. */
  readonly decay?: number;
  /** Run the fit on this backend or fail; without it the fastest is chosen. */
  readonly backend?: string;
  /** Called before each layer is fitted. */
  readonly progress?: (layer: number, layers: number) => void | Promise<void>;
}

/**
 * Predicts the experts of every layer of a token before its first layer runs: per layer a ridge regression from
 * [mean path of the token's vocabulary number | the same after the same token | experts of the token before in the layers below
 * and above, and in this one | fading mean | mean of the sequence | 1] to the experts used. Fitted on whole sequences; on these, a token is left out of the means.
 *
 * Use: `reset()` where a sequence begins; `scores(token)` before a token; `observe(ids, token)` after it.
 */
export class RidgePredictor {
  readonly layers: number;
  readonly experts: number;
  readonly topK: number;
  /** [layers, features, experts] */
  readonly weights: Float32Array;
  readonly #tables: Tables;
  #before = unknownToken;
  readonly #history: RoutingHistory;
  readonly #features: Float32Array;
  readonly #scores: Float32Array;
  readonly #sums: Float64Array;

  private constructor({ layers, experts, topK }: MoeTrace, tables: Tables, decay: number, weights: Float32Array) {
    this.layers = layers;
    this.experts = experts;
    this.topK = topK;
    this.weights = weights;
    this.#tables = tables;
    this.#history = new RoutingHistory(layers, experts, decay, tables.token.mean);
    this.#features = new Float32Array(featureCount(experts));
    this.#scores = new Float32Array(layers * experts);
    this.#sums = new Float64Array(experts);
  }

  /** Fits the weights on some sequences of a trace. Throws HotsetError where they hold no token. */
  static async fit(trace: MoeTrace, sequences: readonly Sequence[], settings: RidgePredictorSettings = {}): Promise<RidgePredictor> {
    const { penalty = 20, decay = 0.9, backend, progress } = settings;
    const { layers, experts, topK, ids } = trace;
    const tokens = tokensOf(sequences);
    if (tokens.length === 0)
      throw new HotsetError("argument", { where: "RidgePredictor.fit", expected: "sequences with tokens", received: "none" });
    const features = featureCount(experts);
    const keys = tokenKeys(trace);
    const tables = {
      token: new PathTable(trace, tokens, (t) => known(keys.token[t])),
      pair: new PathTable(trace, tokens, (t) => keys.pair[t]),
    };
    const weights = new Float32Array(layers * features * experts);
    const history = new RoutingHistory(layers, experts, decay, tables.token.mean);
    const x = new Float32Array(tokens.length * features);
    const y = new Float32Array(tokens.length * experts);
    for (let layer = 0; layer < layers; layer++) {
      await progress?.(layer, layers);
      y.fill(0);
      const neighbours = [layer - 1, layer, layer + 1].filter((near) => near >= 0 && near < layers);
      let row = 0;
      for (const { start, length } of sequences) {
        history.reset();
        for (let t = start; t < start + length; t++, row++) {
          const at = (t * layers + layer) * topK;
          const used = ids.subarray(at, at + topK);
          writePaths(tables, layer, experts, known(keys.token[t]), keys.pair[t], x, row * features, used);
          history.write(layer, x, row * features + featureBlocks.below * experts);
          for (const near of neighbours) history.observe(near, ids.subarray((t * layers + near) * topK, (t * layers + near + 1) * topK));
          for (const expert of used) y[row * experts + expert] = 1;
        }
      }
      const fitted = await ridge({ x, y, rows: tokens.length, features, outputs: experts, penalty, backend });
      weights.set(fitted.weights, layer * features * experts);
    }
    return new RidgePredictor(trace, tables, decay, weights);
  }

  /** A new sequence begins. */
  reset(): void {
    this.#history.reset();
    this.#before = unknownToken;
  }

  /** [layers, experts]: for each expert, how likely the coming token uses it. `token`: its vocabulary number, if known. Reused by the next call. */
  scores(token: number = unknownToken): Float32Array {
    for (let layer = 0; layer < this.layers; layer++) this.layerScores(layer, token, this.#scores, layer * this.experts);
    return this.#scores;
  }

  /** The features [7 * experts + 1] that a layer's scores come from, for simpler predictors. Reused by the next call. */
  features(layer: number, token: number = unknownToken): Float32Array {
    writePaths(this.#tables, layer, this.experts, known(token), pairKey(this.#before, token), this.#features, 0);
    this.#history.write(layer, this.#features, featureBlocks.below * this.experts);
    return this.#features;
  }

  /** The experts that the token used, [layers, topK]; and its vocabulary number, if known. */
  observe(ids: ArrayLike<number> & { subarray(from: number, to: number): ArrayLike<number> }, token: number = unknownToken): void {
    this.#before = token;
    if (ids.length !== this.layers * this.topK)
      throw new HotsetError("shape", {
        where: "RidgePredictor",
        expected: `[${this.layers}, ${this.topK}] experts`,
        received: describe(ids),
      });
    for (let layer = 0; layer < this.layers; layer++)
      this.#history.observe(layer, ids.subarray(layer * this.topK, (layer + 1) * this.topK));
  }

  private layerScores(layer: number, token: number, out: Float32Array, at: number): void {
    const { experts, weights } = this;
    const features = this.features(layer, token);
    const sums = this.#sums.fill(0);
    // Four features at a time: the sums are read and written less often. There are 7 * experts + 1.
    let from = layer * features.length * experts;
    let i = 0;
    for (; i + 4 <= features.length; i += 4, from += 4 * experts) {
      const [a, b, c, d] = [features[i] as number, features[i + 1] as number, features[i + 2] as number, features[i + 3] as number];
      if (a === 0 && b === 0 && c === 0 && d === 0) continue;
      for (let e = 0; e < experts; e++) {
        const first = a * (weights[from + e] as number) + b * (weights[from + experts + e] as number);
        const second = c * (weights[from + 2 * experts + e] as number) + d * (weights[from + 3 * experts + e] as number);
        sums[e] = (sums[e] as number) + first + second;
      }
    }
    for (; i < features.length; i++, from += experts)
      for (let e = 0; e < experts; e++) sums[e] = (sums[e] as number) + (features[i] as number) * (weights[from + e] as number);
    out.set(sums, at);
  }
}

interface Tables {
  readonly token: PathTable<number>;
  readonly pair: PathTable<string>;
}

const known = (token: number | undefined): number | undefined => (token === unknownToken ? undefined : token);

/** The first two blocks: a pair's path is drawn towards its token's, that towards all tokens'. */
function writePaths(
  { token: tokens, pair: pairs }: Tables,
  layer: number,
  experts: number,
  token: number | undefined,
  pair: string | undefined,
  out: Float32Array,
  at: number,
  own?: ArrayLike<number>,
): void {
  tokens.write(layer, token, tokens.mean, layer * experts, out, at, own);
  pairs.write(layer, pair, out, at, out, at + experts, own);
}
