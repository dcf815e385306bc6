/** The layers of a Llama-architecture model besides attention, as bound steps for so many tokens at a time. */
import { rope } from "../attention/rope/spec.js";
import type { DType } from "../dtype.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import type { LayerWeights, ModelConfig, ModelWeights, Weight } from "./config.js";
import { embedding } from "./embedding/spec.js";
import type { Holdings } from "./holdings.js";
import { linear } from "./linear/spec.js";
import { rmsNorm } from "./rms-norm/spec.js";
import { swiglu } from "./swiglu/spec.js";

/** What the layers hand to each other, for up to `most` tokens. */
export type Activations = ReturnType<typeof activations>;

/** The stream is x before a layer's attention and y after it: a result may share no memory with what it is added to. */
export function activations({ dim, heads, kvHeads, headDim, hiddenDim, vocab }: ModelConfig, held: Holdings, most: number) {
  const f32 = (...shape: number[]): Tensor<"f32"> => held.room("f32", ...shape);
  return {
    x: f32(most, dim),
    y: f32(most, dim),
    normed: f32(most, dim),
    query: f32(most, heads, headDim),
    key: f32(most, kvHeads, headDim),
    value: f32(most, kvHeads, headDim),
    queries: f32(most, heads, headDim),
    keys: f32(most, kvHeads, headDim),
    attended: f32(most, heads, headDim),
    gate: f32(most, hiddenDim),
    up: f32(most, hiddenDim),
    hidden: f32(most, hiddenDim),
    last: f32(1, dim),
    lastNormed: f32(1, dim),
    logits: f32(1, vocab),
  };
}

/** The steps of one layer: before attention, and after it. */
export interface LayerSteps {
  readonly before: readonly Step[];
  readonly after: readonly Step[];
}

/** All layers for up to `tokens` tokens at a time. */
export interface LayerSet {
  readonly tokens: number;
  readonly lookUp: Step;
  readonly layers: readonly LayerSteps[];
}

export interface LayerParts {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly held: Holdings;
  readonly of: Activations;
}

/** Binds the layers; `ids` and `positions` are [tokens]. */
export async function bindLayers(parts: LayerParts, tokens: number, ids: Tensor<"i32">, positions: Tensor<"i32">): Promise<LayerSet> {
  const { config, weights, held, of } = parts;
  const { hotset } = held;
  const where = { backend: held.backend.id };
  const { dim, heads, kvHeads, headDim, hiddenDim, rotaryPairs, ropePairs, ropeTheta } = config;
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim];
  const part = (tensor: Tensor<"f32">, ...shape: number[]) => tensor.view([tokens, ...shape]);
  const [x, y, normed] = [part(of.x, dim), part(of.y, dim), part(of.normed, dim)];
  const [gate, up, hidden] = [part(of.gate, hiddenDim), part(of.up, hiddenDim), part(of.hidden, hiddenDim)];
  const project = (from: Tensor<"f32">, weight: Weight, to: Tensor<"f32">, besides: Besides = {}) =>
    linearStep(held, from, weight, to, besides);
  const norm = (from: Tensor<"f32">, weight: Float32Array) => normStep(parts, from, weight, normed);
  const turn = async (from: Tensor<"f32">, to: Tensor<"f32">, count: number): Promise<Step> => {
    const frequencies = config.ropeFrequencies && (await held.vector(config.ropeFrequencies));
    const axes = { tokens, heads: count, headDim, rotaryPairs };
    const plan = await hotset.plan(rope, axes, { pairs: ropePairs, frequencies: frequencies !== undefined }, where);
    const inputs = { x: part(from, count, headDim), positions, ...(frequencies ? { frequencies } : {}) };
    return held.step(plan.bind(inputs, { out: part(to, count, headDim) }, { theta: ropeTheta }));
  };
  const gated = await hotset.plan(swiglu, { tokens, dim: hiddenDim }, {}, where);
  const layer = async (w: LayerWeights): Promise<LayerSteps> => ({
    before: [
      await norm(x, w.attentionNorm),
      await project(normed, w.query, part(of.query, width), { bias: w.queryBias }),
      await project(normed, w.key, part(of.key, kvWidth), { bias: w.keyBias }),
      await project(normed, w.value, part(of.value, kvWidth), { bias: w.valueBias }),
      await turn(of.query, of.queries, heads),
      await turn(of.key, of.keys, kvHeads),
    ],
    after: [
      await project(part(of.attended, width), w.attentionOut, y, { residual: x }),
      await norm(y, w.feedForwardNorm),
      await project(normed, w.gate, gate),
      await project(normed, w.up, up),
      held.step(gated.bind({ gate, up }, { out: hidden })),
      await project(hidden, w.down, x, { residual: y }),
    ],
  });
  const table = await hotset.plan(embedding, { tokens, vocab: config.vocab, dim }, { table: weights.embedding.dtype }, where);
  const lookUp = held.step(table.bind({ ids, table: await held.weight(weights.embedding) }, { out: x }));
  const layers: LayerSteps[] = [];
  for (const w of weights.layers) layers.push(await layer(w));
  return { tokens, lookUp, layers };
}

/** The logits after the last of several tokens, whose row `row` names, and after a single one. */
export async function bindFinish(parts: LayerParts, row: Tensor<"i32">): Promise<{ one: readonly Step[]; many: readonly Step[] }> {
  const { config, weights, held, of } = parts;
  const [most = 1, dim = 1] = of.x.shape;
  const plan = await held.hotset.plan(embedding, { tokens: 1, vocab: most, dim }, { table: "f32" }, { backend: held.backend.id });
  const pick = held.step(plan.bind({ ids: row, table: of.x }, { out: of.last }));
  const logits = await linearStep(held, of.lastNormed, weights.output, of.logits.view([1, config.vocab]));
  return {
    one: [await normStep(parts, of.x.view([1, dim]), weights.norm, of.lastNormed), logits],
    many: [pick, await normStep(parts, of.last, weights.norm, of.lastNormed), logits],
  };
}

interface Besides {
  readonly bias?: Float32Array | undefined;
  readonly residual?: Tensor<"f32">;
}

/** From [tokens, inDim] to [tokens, outDim]. */
async function linearStep(
  held: Holdings,
  x: Tensor<"f32">,
  weight: Weight,
  out: Tensor<"f32">,
  { bias, residual }: Besides = {},
): Promise<Step> {
  const [tokens = 1, inDim = 1] = x.shape;
  const [, outDim = 1] = out.shape;
  const variant = { weight: weight.dtype as Extract<DType, Weight["dtype"]>, bias: bias !== undefined, residual: residual !== undefined };
  const plan = await held.hotset.plan(linear, { tokens, inDim, outDim }, variant, { backend: held.backend.id });
  const inputs = {
    x,
    weight: await held.weight(weight),
    ...(bias ? { bias: await held.vector(bias) } : {}),
    ...(residual ? { residual } : {}),
  };
  return held.step(plan.bind(inputs, { out }));
}

async function normStep({ config, held }: LayerParts, x: Tensor<"f32">, weight: Float32Array, out: Tensor<"f32">): Promise<Step> {
  const [tokens = 1, dim = 1] = x.shape;
  const plan = await held.hotset.plan(rmsNorm, { tokens, dim }, {}, { backend: held.backend.id });
  return held.step(plan.bind({ x, weight: await held.vector(weight) }, { out }, { epsilon: config.normEpsilon }));
}
