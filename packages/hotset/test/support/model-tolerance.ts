/** How far a backend's logits may be from those of js, computed from what the ops' declarations allow each of them. */
import { attention, type LoadedModel, model } from "@hotset/core";

/**
 * Of each logit: the roundings of all ops on the way to it, times the unit roundoff of f32, times the sum of |terms| that the
 * last product may have (by Cauchy and Schwarz: the normalised vector has the length sqrt(dim) before its weights). What a
 * layer leaves wrong reaches the next one no larger than it was, relative to its vector: tiny models with weights of spread
 * 1.5 / sqrt(dim) are no amplifiers, and a mutant below shows that the bound is not empty. The model must be stored in f32.
 */
export function logitTolerances({ config, weights }: LoadedModel): Float64Array {
  const { dim, heads, kvHeads, headDim, hiddenDim, vocab, layers, rotaryPairs, context } = config;
  const linear = (inDim: number): number => model.linear.rounding({ tokens: 1, inDim, outDim: 1 }, {}).out as number;
  const norm = model.rmsNorm.rounding({ tokens: 1, dim }, {}).out as number;
  const pages = Math.ceil(context / 16);
  const sizes = { batch: 1, queryHeads: heads, kvHeads, headDim, valueDim: headDim, pages, pageSize: 16, maxPages: pages };
  const attend = attention.decode.rounding(sizes, {}).out as number;
  const turn = attention.rope.rounding({ tokens: 1, heads, headDim, rotaryPairs }, {}).out as number;
  const gate = model.swiglu.rounding({ tokens: 1, dim: hiddenDim }, {}).out as number;
  const layer = 2 * norm + linear(dim) + turn + attend + linear(heads * headDim) + linear(dim) + gate + linear(hiddenDim);
  const roundings = layers * layer + norm + linear(dim);
  const output = weights.output.data as Float32Array;
  return Float64Array.from({ length: vocab }, (_, id) => {
    let squares = 0;
    for (let i = 0; i < dim; i++) squares += ((output[id * dim + i] as number) * (weights.norm[i] as number)) ** 2;
    return roundings * 2 ** -24 * Math.sqrt(dim * squares);
  });
}
