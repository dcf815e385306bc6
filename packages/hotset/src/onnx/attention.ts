/** ONNX's own Attention (operator sets 23 and 24). */
import { kvCache } from "@hotset/core";
import { magnitudes, within } from "./bound.js";
import type { OnnxCase } from "./cases.js";
import { type Bias, cacheOf, type Past, type Problem, type Sizes, unitValues } from "./problem.js";
import { attend, logits } from "./routes.js";
import type { Produced, Runner } from "./runner.js";
import { elementTypes, notRun, numbers, type OnnxTensor, roundoff, transposed, wholes } from "./tensor.js";
import { option, shapeError } from "./values.js";

export const attentionAttributes = [
  "is_causal",
  "kv_num_heads",
  "q_num_heads",
  "qk_matmul_output_mode",
  "scale",
  "softcap",
  "softmax_precision",
];

export async function attention(run: Runner, { inputs, attributes, expected }: OnnxCase): Promise<Produced[]> {
  const [q, k, v, mask, pastKey, pastValue, nonpad] = inputs;
  if (!q || !k || !v) throw shapeError("Attention", "Q, K and V", "fewer");
  if ((pastKey === undefined) !== (pastValue === undefined))
    throw shapeError("Attention", "past_key and past_value together", "one of them");
  if (q.type !== "float32" && q.type !== "float16") throw notRun("Attention of float32 or float16", `Attention of ${q.type}`);
  const precision = option(attributes, "softmax_precision", 1);
  const softmaxUnit = roundoff[elementTypes[precision as 1]?.name];
  if (softmaxUnit === undefined) throw notRun("softmax_precision of a float type", `softmax_precision ${precision}`);
  // Softmax in float64 is more than f32 gives, and no more than the other steps let through.
  const unit = Math.max(2 ** -24, roundoff[q.type] as number, softmaxUnit);

  const queries = headsOf(q, option(attributes, "q_num_heads", 0), "Q");
  const keys = headsOf(k, option(attributes, "kv_num_heads", 0), "K");
  const values = headsOf(v, option(attributes, "kv_num_heads", 0), "V");
  const before = pastKey?.shape[2] ?? 0;
  const sizes: Sizes = {
    batch: queries.batch,
    rows: queries.tokens,
    tokens: before + keys.tokens,
    queryHeads: queries.heads,
    kvHeads: keys.heads,
    headDim: queries.width,
    valueDim: values.width,
  };
  checkSizes(sizes, keys, values, pastKey, pastValue);
  const dtype = k.type === "float16" ? "f16" : "f32";
  const past = pastKey && pastValue && ({ keys: pastKey.data, values: pastValue.data, tokens: before, capacity: before } as Past);
  const cache = await cacheOf(run, sizes, dtype, past, { keys: keys.data, values: values.data, tokens: keys.tokens });

  const problem: Problem = {
    sizes,
    queries: queries.data,
    cache,
    scale: option(attributes, "scale", 1 / Math.sqrt(sizes.headDim)),
    softCap: option(attributes, "softcap", 0),
    seen: visible(sizes, option(attributes, "is_causal", 0) !== 0, before, nonpad && wholes(nonpad, "nonpad_kv_seqlen")),
    bias: mask && biasOf(mask, sizes),
  };
  const size = magnitudes(problem);
  const maker = { unit, tokens: sizes.tokens, headDim: sizes.headDim };
  const { batch, rows, queryHeads, kvHeads, headDim, valueDim, tokens } = sizes;

  const produced: Produced[] = (await attend(run, problem)).map(({ via, out, steps }) => {
    const room = within(size.out, steps, maker);
    if (q.shape.length === 3) return { output: 0, shape: [batch, rows, queryHeads * valueDim], values: out, within: room, via };
    const [shape, order] = [
      [batch, rows, queryHeads, valueDim],
      [0, 2, 1, 3],
    ];
    const turned = transposed(out, shape, order);
    return { output: 0, shape: [batch, queryHeads, rows, valueDim], values: turned, within: transposed(room, shape, order), via };
  });
  const stored = (data: Float32Array | Uint16Array): Float32Array => numbers({ ...k, data }, "K");
  const via = kvCache.append.id;
  if (expected[1]) produced.push({ output: 1, shape: [batch, kvHeads, tokens, headDim], values: stored(cache.keys), via });
  if (expected[2]) produced.push({ output: 2, shape: [batch, kvHeads, tokens, valueDim], values: stored(cache.values), via });
  if (expected[3]) produced.push(...(await matmulOutputs(run, problem, option(attributes, "qk_matmul_output_mode", 0), size, maker)));
  return produced;
}

/** qk_matmul_output: 0 the logits, 1 after the cap, 2 with the mask, 3 the weights. */
async function matmulOutputs(
  run: Runner,
  problem: Problem,
  mode: number,
  size: ReturnType<typeof magnitudes>,
  maker: Parameters<typeof within>[2],
): Promise<Produced[]> {
  const { batch, rows, queryHeads, tokens } = problem.sizes;
  const shape = [batch, queryHeads, rows, tokens];
  if (mode === 3)
    return (await attend(run, problem, tokens, unitValues(problem.sizes, problem.cache))).map(({ via, out, steps }) => ({
      output: 3,
      shape,
      values: transposed(out, [batch, rows, queryHeads, tokens], [0, 2, 1, 3]),
      within: within(size.weights, steps, maker),
      via: `${via} over unit vectors`,
    }));
  if (![0, 1, 2].includes(mode)) throw notRun("qk_matmul_output_mode 0 to 3", `qk_matmul_output_mode ${mode}`);
  const { out, steps, via } = await logits(run, mode === 0 ? { ...problem, softCap: 0 } : problem);
  const { bias, seen } = problem;
  const values = out.map((logit, i) => {
    if (mode < 2) return logit;
    const t = i % tokens;
    const [b, h, row] = [
      Math.floor(i / (tokens * rows * queryHeads)),
      Math.floor(i / (tokens * rows)) % queryHeads,
      Math.floor(i / tokens) % rows,
    ];
    if (t >= (seen[b * rows + row] as number)) return Number.NEGATIVE_INFINITY;
    return bias
      ? logit + (bias.values[((b * bias.heads + Math.floor((h * bias.heads) / queryHeads)) * rows + row) * tokens + t] as number)
      : logit;
  });
  return [{ output: 3, shape, values, within: within(size.logits, steps + 1, maker), via: `${via}, of single tokens` }];
}

interface Heads {
  /** [batch, tokens, heads, width] */
  readonly data: Float32Array;
  readonly batch: number;
  readonly tokens: number;
  readonly heads: number;
  readonly width: number;
}

/** [batch, tokens, heads * width] as it lies, or [batch, heads, tokens, width] turned. */
export function headsOf(tensor: OnnxTensor, heads: number, name: string): Heads {
  const data = numbers(tensor, name);
  const { shape } = tensor;
  if (shape.includes(0)) throw shapeError("Attention", `${name} that is not empty`, `[${shape.join(", ")}]`);
  if (shape.length === 4) {
    const [batch, found, tokens, width] = shape as [number, number, number, number];
    return { data: transposed(data, shape, [0, 2, 1, 3]), batch, tokens, heads: found, width };
  }
  const [batch, tokens, all] = shape as [number, number, number];
  if (shape.length !== 3 || !(heads > 0) || all % heads !== 0)
    throw shapeError(
      "Attention",
      `${name} of 4 axes, or of 3 whose last is a multiple of the heads`,
      `[${shape.join(", ")}] for ${heads} heads`,
    );
  return { data, batch, tokens, heads, width: all / heads };
}

function checkSizes(
  { batch, kvHeads, headDim, valueDim }: Sizes,
  keys: Heads,
  values: Heads,
  pastKey?: OnnxTensor,
  pastValue?: OnnxTensor,
): void {
  const before = pastKey?.shape[2];
  const fits =
    keys.batch === batch &&
    values.batch === batch &&
    values.heads === kvHeads &&
    values.tokens === keys.tokens &&
    keys.width === headDim &&
    (!pastKey || `${pastKey.shape}` === `${[batch, kvHeads, before, headDim]}`) &&
    (!pastValue || `${pastValue.shape}` === `${[batch, kvHeads, before, valueDim]}`);
  if (!fits) throw shapeError("Attention", "Q, K, V and the past of the same batch, heads and sizes", "others");
}

/** How many of the first tokens each query sees: bottom-right causality behind the past, and keys that are padding. */
export function visible({ batch, rows, tokens }: Sizes, causal: boolean, before: number, valid: readonly number[] | undefined): Int32Array {
  if (valid && valid.length !== batch) throw shapeError("Attention", `nonpad_kv_seqlen of ${batch}`, `${valid.length}`);
  return Int32Array.from({ length: batch * rows }, (_, i) => {
    const b = Math.floor(i / rows);
    const offset = before > 0 || !valid ? before : (valid[b] as number) - rows;
    return Math.max(0, Math.min(tokens, valid?.[b] ?? tokens, causal ? offset + (i % rows) + 1 : tokens));
  });
}

/** A mask of 2 to 4 axes, as [batch, heads, rows, tokens]: what it lacks at the end of the tokens is hidden. */
export function biasOf(mask: OnnxTensor, { batch, rows, tokens, queryHeads }: Sizes): Bias {
  const values =
    mask.type === "bool"
      ? Float32Array.from(mask.data as Uint8Array, (one) => (one ? 0 : Number.NEGATIVE_INFINITY))
      : numbers(mask, "attn_mask");
  const shape = [...new Array<number>(Math.max(0, 4 - mask.shape.length)).fill(1), ...mask.shape];
  const [maskBatch, heads, maskRows, length] = shape as [number, number, number, number];
  const broadcasts = (size: number, to: number): boolean => size === 1 || size === to;
  if (
    shape.length !== 4 ||
    !broadcasts(maskBatch, batch) ||
    !broadcasts(heads, queryHeads) ||
    !broadcasts(maskRows, rows) ||
    length > tokens
  )
    throw shapeError("Attention", `a mask for [${[batch, queryHeads, rows, tokens].join(", ")}]`, `[${mask.shape.join(", ")}]`);
  const all = new Float32Array(batch * heads * rows * tokens).fill(Number.NEGATIVE_INFINITY);
  for (let i = 0; i < batch * heads * rows; i++) {
    const [b, h, row] = [Math.floor(i / (heads * rows)), Math.floor(i / rows) % heads, i % rows];
    const from = ((maskBatch === 1 ? 0 : b) * heads + h) * maskRows + (maskRows === 1 ? 0 : row);
    all.set(values.subarray(from * length, (from + 1) * length), i * tokens);
  }
  return { heads, values: all };
}
