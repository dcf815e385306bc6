/** ONNX Runtime's own attention operators (domain com.microsoft): Attention, MultiHeadAttention and GroupQueryAttention. */
import { kvCache, model } from "@hotset/core";
import { biasOf, headsOf } from "./attention.js";
import { type Magnitudes, magnitudes, type Origins, within } from "./bound.js";
import type { OnnxCase } from "./cases.js";
import { type Cache, cacheOf, type Past, type Problem, type Sizes } from "./problem.js";
import { attend } from "./routes.js";
import type { Produced, Runner } from "./runner.js";
import { notRun, numbers, type OnnxTensor, transposed, wholes } from "./tensor.js";
import { option, shapeError } from "./values.js";

export const contribAttributes = {
  Attention: ["num_heads", "unidirectional", "qkv_hidden_sizes", "scale", "mask_filter_value"],
  MultiHeadAttention: ["num_heads", "unidirectional", "scale", "mask_filter_value"],
  GroupQueryAttention: ["num_heads", "kv_num_heads", "scale", "softcap", "local_window_size", "do_rotary", "rotary_interleaved"],
} as const;

/** Attention with its projection: queries, keys and values are made of the input by `model/linear`. */
export async function projectedAttention(run: Runner, { inputs, attributes }: OnnxCase): Promise<Produced[]> {
  const [input, weights, bias, maskIndex, past, added] = inputs;
  if (maskIndex || past || inputs[6])
    throw notRun("Attention of com.microsoft without mask_index and past", "Attention of com.microsoft with them");
  if (!input || !weights || input.shape.length !== 3 || weights.shape.length !== 2)
    throw shapeError("Attention", "an input of 3 axes and weights of 2", "others");
  const [batch, rows, inDim] = input.shape as [number, number, number];
  const heads = option(attributes, "num_heads", 0);
  const outDim = weights.shape[1] as number;
  const widths = (attributes.qkv_hidden_sizes as number[] | undefined) ?? [outDim / 3, outDim / 3, outDim / 3];
  if (
    weights.shape[0] !== inDim ||
    widths.length !== 3 ||
    widths.reduce((a, b) => a + b, 0) !== outDim ||
    widths.some((width) => width % heads !== 0)
  )
    throw shapeError("Attention", "weights [components, heads of queries, keys and values]", `[${weights.shape}] for ${heads} heads`);

  const axes = { tokens: batch * rows, inDim, outDim };
  const tensors = {
    x: numbers(input, "input"),
    weight: transposed(numbers(weights, "weights"), [inDim, outDim], [1, 0]),
    ...(bias && { bias: numbers(bias, "bias") }),
  };
  const { out } = await run.call(model.linear, { ...axes, ...tensors });
  const size = new Float64Array(out.length);
  const variant = { weight: "f32", bias: bias !== undefined, residual: false };
  const plain = { ...tensors, out: new Float32Array(out.length) };
  model.linear.reference({ axes, variant, tensors: plain, scalars: {}, pitch: {}, magnitude: { out: size }, fail() {} });

  const part = <T extends Float32Array | Float64Array>(all: T, which: number): T => {
    const width = widths[which] as number;
    const first = widths.slice(0, which).reduce((a, b) => a + b, 0);
    const found = new (all.constructor as Float64ArrayConstructor)(batch * rows * width);
    for (let i = 0; i < batch * rows; i++) found.set(all.subarray(i * outDim + first, i * outDim + first + width), i * width);
    return found as unknown as T;
  };
  const sizes: Sizes = {
    batch,
    rows,
    tokens: rows,
    queryHeads: heads,
    kvHeads: heads,
    headDim: (widths[0] as number) / heads,
    valueDim: (widths[2] as number) / heads,
  };
  if (widths[0] !== widths[1]) throw shapeError("Attention", "queries and keys of the same size", `${widths}`);
  const fresh = { keys: part(out, 1), values: part(out, 2), tokens: rows };
  const cache = await cacheOf(run, sizes, "f32", undefined, fresh);
  const problem = problemOf(sizes, part(out, 0), cache, attributes, added);
  const steps = 2 * (model.linear.rounding(axes, variant).out as number);
  const origins = { queries: part(size, 0), keys: part(size, 1), values: part(size, 2), steps };
  return outputs(run, problem, `${model.linear.id}, `, magnitudes(problem, origins), origins.steps);
}

export async function multiHeadAttention(run: Runner, { inputs, attributes, expected }: OnnxCase): Promise<Produced[]> {
  const [query, key, value, bias, padding, added, pastKey, pastValue] = inputs;
  if (!query || !key || !value || query.shape.length !== 3)
    throw notRun("MultiHeadAttention with a query, a key and a value", "MultiHeadAttention of packed inputs");
  if (padding) throw notRun("MultiHeadAttention without key_padding_mask", "MultiHeadAttention with key_padding_mask");
  const heads = option(attributes, "num_heads", 0);
  const [q, k, v] = [headsOf(query, heads, "query"), headsOf(key, heads, "key"), headsOf(value, heads, "value")];
  // ONNX Runtime takes no notice of a past where present_key and present_value are not asked for (its pull request 28027).
  const usesPast = pastKey !== undefined && pastValue !== undefined && expected[1] !== undefined;
  const before = usesPast ? (pastKey.shape[2] as number) : 0;
  const sizes: Sizes = {
    batch: q.batch,
    rows: q.tokens,
    tokens: before + k.tokens,
    queryHeads: heads,
    kvHeads: heads,
    headDim: q.width,
    valueDim: v.width,
  };
  // Where there is one, its sums are of two terms; it is added on the host.
  const origins = bias && sumsWith(numbers(bias, "bias"), [q.data, k.data, v.data], [heads * q.width, heads * k.width, heads * v.width]);
  if (origins && before > 0) throw notRun("MultiHeadAttention with a bias or a past", "MultiHeadAttention with both");
  const past = usesPast ? pastOf(pastKey, pastValue, before) : undefined;
  const cache = await cacheOf(run, sizes, "f32", past, { keys: k.data, values: v.data, tokens: k.tokens });
  const problem = problemOf(sizes, q.data, cache, attributes, added && lastColumns(added, sizes.tokens), before);
  return [...(await outputs(run, problem, "", magnitudes(problem, origins), origins?.steps ?? 0)), ...presents(sizes, cache, expected)];
}

export async function groupQueryAttention(run: Runner, { inputs, attributes, expected }: OnnxCase): Promise<Produced[]> {
  const [query, key, value, pastKey, pastValue, lastTokens, total] = inputs;
  if (!query || !lastTokens || !total) throw shapeError("GroupQueryAttention", "a query, seqlens_k and total_sequence_length", "fewer");
  const further =
    inputs.slice(7).some((one) => one !== undefined) ||
    option(attributes, "do_rotary", 0) ||
    option(attributes, "local_window_size", -1) !== -1;
  if (further)
    throw notRun(
      "GroupQueryAttention of queries, keys, values and a past",
      "GroupQueryAttention with rotary caches, a window or further inputs",
    );
  const [queryHeads, kvHeads] = [option(attributes, "num_heads", 0), option(attributes, "kv_num_heads", 0)];
  const [q, k, v] =
    key && value
      ? [headsOf(query, queryHeads, "query"), headsOf(key, kvHeads, "key"), headsOf(value, kvHeads, "value")]
      : packed(query, queryHeads, kvHeads);
  const lengths = wholes(lastTokens, "seqlens_k").map((last) => last + 1);
  const tokens = wholes(total, "total_sequence_length")[0] as number;
  if (lengths.length !== q.batch || lengths.some((length) => length !== tokens))
    throw notRun("GroupQueryAttention of sequences of one length", "GroupQueryAttention of ragged sequences");
  const before = tokens - k.tokens;
  const sizes: Sizes = { batch: q.batch, rows: q.tokens, tokens, queryHeads, kvHeads, headDim: q.width, valueDim: v.width };
  if (before < 0 || before > (pastKey?.shape[2] ?? 0))
    throw shapeError("GroupQueryAttention", `a past of ${before}`, `${pastKey?.shape[2] ?? 0}`);
  const past = pastKey && pastValue && pastOf(pastKey, pastValue, before);
  const cache = await cacheOf(run, sizes, "f32", past, { keys: k.data, values: v.data, tokens: k.tokens });
  const problem = problemOf(sizes, q.data, cache, { ...attributes, unidirectional: 1 }, undefined, before);
  return [...(await outputs(run, problem, "", magnitudes(problem), 0)), ...presents(sizes, cache, expected)];
}

type Heads = ReturnType<typeof headsOf>;

/** [batch, tokens, (queryHeads + 2 * kvHeads) * headDim] */
function packed(all: OnnxTensor, queryHeads: number, kvHeads: number): [Heads, Heads, Heads] {
  const { data, batch, tokens, width } = headsOf(all, queryHeads + 2 * kvHeads, "query");
  const part = (first: number, heads: number): Heads => {
    const found = new Float32Array(batch * tokens * heads * width);
    for (let i = 0; i < batch * tokens; i++) {
      const from = (i * (queryHeads + 2 * kvHeads) + first) * width;
      found.set(data.subarray(from, from + heads * width), i * heads * width);
    }
    return { data: found, batch, tokens, heads, width };
  };
  return [part(0, queryHeads), part(queryHeads, kvHeads), part(queryHeads + kvHeads, kvHeads)];
}

function pastOf(keys: OnnxTensor, values: OnnxTensor, tokens: number): Past | undefined {
  const capacity = keys.shape[2] as number;
  if (keys.shape.length !== 4 || values.shape[2] !== capacity)
    throw shapeError("past", "[batch, heads, tokens, components] of keys and values", `[${keys.shape}]`);
  return { keys: numbers(keys, "past_key"), values: numbers(values, "past_value"), tokens, capacity };
}

function problemOf(
  sizes: Sizes,
  queries: Float32Array,
  cache: Cache,
  attributes: OnnxCase["attributes"],
  added: OnnxTensor | undefined,
  before = 0,
): Problem {
  const { batch, rows, tokens } = sizes;
  const causal = option(attributes, "unidirectional", 0) !== 0;
  const scale = option(attributes, "scale", 0);
  return {
    sizes,
    queries,
    cache,
    scale: scale === 0 ? 1 / Math.sqrt(sizes.headDim) : scale,
    softCap: option(attributes, "softcap", 0),
    seen: Int32Array.from({ length: batch * rows }, (_, i) => (causal ? Math.min(tokens, before + (i % rows) + 1) : tokens)),
    bias: added && biasOf(added, sizes),
  };
}

async function outputs(run: Runner, problem: Problem, made: string, size: Magnitudes, before: number): Promise<Produced[]> {
  const { batch, rows, tokens, queryHeads, headDim, valueDim } = problem.sizes;
  const maker = { unit: 2 ** -24, tokens, headDim };
  return (await attend(run, problem)).map(({ via, out, steps }) => ({
    output: 0,
    shape: [batch, rows, queryHeads * valueDim],
    values: out,
    // What went into the projection went into the maker's too.
    within: within(size.out, steps + 2 * before, maker),
    via: made + via,
  }));
}

function presents(
  { batch, kvHeads, headDim, valueDim }: Sizes,
  { keys, values, capacity }: Cache,
  expected: OnnxCase["expected"],
): Produced[] {
  const via = kvCache.append.id;
  const produced: Produced[] = [];
  if (expected[1]) produced.push({ output: 1, shape: [batch, kvHeads, capacity, headDim], values: keys as Float32Array, via });
  if (expected[2]) produced.push({ output: 2, shape: [batch, kvHeads, capacity, valueDim], values: values as Float32Array, via });
  return produced;
}

/** Of a bias that counts a past which is not used, the columns of the new tokens. */
function lastColumns(added: OnnxTensor, tokens: number): OnnxTensor {
  const columns = added.shape.at(-1) ?? 0;
  if (columns <= tokens) return added;
  const values = numbers(added, "attention_bias");
  return {
    ...added,
    type: "float32",
    shape: [...added.shape.slice(0, -1), tokens],
    data: values.filter((_, i) => i % columns >= columns - tokens),
  };
}

/** Adds each part of the bias to its rows, in place; and the sums of |terms|. */
function sumsWith(bias: Float32Array, parts: readonly Float32Array[], widths: readonly number[]): Origins {
  if (bias.length !== widths.reduce((a, b) => a + b, 0))
    throw shapeError("MultiHeadAttention", `a bias of ${widths.join(" + ")}`, `${bias.length}`);
  let first = 0;
  const sizes = parts.map((part, which) => {
    const width = widths[which] as number;
    const size = Float64Array.from(part, (value, i) => Math.abs(value) + Math.abs(bias[first + (i % width)] as number));
    for (let i = 0; i < part.length; i++) part[i] = (part[i] as number) + (bias[first + (i % width)] as number);
    first += width;
    return size;
  });
  return { queries: sizes[0] as Float64Array, keys: sizes[1] as Float64Array, values: sizes[2] as Float64Array, steps: 2 };
}
