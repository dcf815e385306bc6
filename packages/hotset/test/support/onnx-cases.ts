/** Node tests that are made by seed, each with other attributes: name, node, inputs and what a computation in f64 expects. */
import { Random } from "@hotset/core/testing/cases";
import type { MadeNode, MadeTensor } from "./onnx-files.js";
import { flat, type PlainAttention, plainAttention, plainRotary, plainSoftmax, range, rounded } from "./plain-onnx.js";

export interface MadeCase {
  readonly name: string;
  readonly node: MadeNode;
  readonly inputs: readonly (MadeTensor | undefined)[];
  readonly outputs: readonly (MadeTensor | undefined)[];
  /** Which of Hotset's ops it goes through. */
  readonly via: readonly string[];
  /** A relative error of a result that must be seen. */
  readonly sees: number;
}

type FloatType = "float32" | "float16";

const tensor = (name: string, shape: readonly number[], type: FloatType = "float32", spread = 1): MadeTensor => {
  const random = new Random(`${name} ${shape} ${type}`);
  const count = shape.reduce((a, b) => a * b, 1);
  return {
    name,
    type,
    shape,
    values: rounded(
      type,
      range(count).map(() => spread * random.normal()),
    ),
  };
};
const bools = (name: string, shape: readonly number[], of: (i: number) => boolean): MadeTensor => ({
  name,
  type: "bool",
  shape,
  values: range(shape.reduce((a, b) => a * b, 1)).map((i) => (of(i) ? 1 : 0)),
});
const whole = (name: string, values: readonly number[], shape: readonly number[] = [values.length]): MadeTensor => ({
  name,
  type: "int64",
  shape,
  values,
});

interface AttentionCase extends Omit<PlainAttention, "q" | "k" | "v"> {
  readonly type?: FloatType;
  readonly q: readonly [number, number, number, number];
  readonly k: readonly [number, number, number, number];
  readonly valueWidth?: number;
  readonly flat?: boolean;
  readonly attributes?: Readonly<Record<string, number>>;
  readonly presents?: boolean;
  readonly via: readonly string[];
}

function attentionCase(name: string, { type = "float32", flat: asFlat, attributes = {}, presents, via, ...rest }: AttentionCase): MadeCase {
  const { causal, scale, softcap, mode, valid, mask, pastKey, pastValue } = rest;
  const [batch] = rest.k;
  const q = tensor("Q", rest.q, type);
  const k = tensor("K", rest.k, type);
  const v = tensor("V", [...rest.k.slice(0, 3), rest.valueWidth ?? rest.k[3]], type);
  const made = plainAttention({ ...rest, q, k, v });
  const given = (one: MadeTensor): MadeTensor => (asFlat ? flat(one) : one);
  const output = (label: string, shape: readonly number[], values: readonly number[]): MadeTensor => ({
    name: label,
    type,
    shape,
    values: rounded(type, values),
  });
  const present = (label: string, values: readonly number[], width: number) => output(label, [batch, rest.k[1], made.total, width], values);
  return {
    name,
    node: {
      operator: "Attention",
      attributes: {
        ...attributes,
        ...(causal && { is_causal: 1 }),
        ...(scale !== undefined && { scale }),
        ...(softcap !== undefined && { softcap }),
        ...(mode !== undefined && { qk_matmul_output_mode: mode }),
        ...(asFlat && { q_num_heads: rest.q[1], kv_num_heads: rest.k[1] }),
      },
    },
    inputs: [given(q), given(k), given(v), mask, pastKey, pastValue, valid && whole("nonpad_kv_seqlen", valid)],
    outputs: [
      given(output("Y", made.shape, made.out)),
      presents ? present("present_key", made.presentKey, rest.k[3]) : undefined,
      presents ? present("present_value", made.presentValue, v.shape[3] as number) : undefined,
      mode === undefined ? undefined : output("qk_matmul_output", [batch, rest.q[1], rest.q[2], made.total], made.matmul),
    ],
    via,
    sees: type === "float16" ? 0.25 : 1e-3,
  };
}

const dense = ["attention/decode", "attention/prefill"];
const hides = ["attention/decode-sparse", "attention/merge"];
const past = (width: number, name: string, type: FloatType = "float32") => tensor(name, [2, 2, 5, width], type);
const window = (t: number, row: number): boolean => t !== row && (t + row) % 3 !== 0;

export const attentionCases: readonly MadeCase[] = [
  attentionCase("plain", { q: [2, 3, 4, 8], k: [2, 3, 6, 8], via: dense }),
  attentionCase("flat and grouped, values wider, a scale", {
    q: [2, 4, 3, 8],
    k: [2, 2, 5, 8],
    valueWidth: 12,
    flat: true,
    scale: 0.3,
    via: dense,
  }),
  attentionCase("causal, more keys than queries", { q: [1, 2, 3, 4], k: [1, 2, 7, 4], causal: true, via: dense }),
  attentionCase("causal, more queries than keys", { q: [1, 2, 7, 4], k: [1, 2, 3, 4], causal: true, mode: 3, via: dense }),
  attentionCase("a past, causal, a cap", {
    q: [2, 4, 3, 8],
    k: [2, 2, 3, 8],
    pastKey: past(8, "past_key"),
    pastValue: past(8, "past_value"),
    causal: true,
    softcap: 1.5,
    presents: true,
    mode: 1,
    via: [...dense, "kv-cache/append"],
  }),
  attentionCase("a cap and a mask that adds, shorter than the keys", {
    q: [2, 2, 4, 8],
    k: [2, 2, 6, 8],
    mask: tensor("attn_mask", [4, 5]),
    softcap: 0.8,
    mode: 2,
    via: ["attention/merge"],
  }),
  attentionCase("the logits before the cap", { q: [1, 2, 2, 8], k: [1, 1, 3, 8], softcap: 0.7, mode: 0, via: dense }),
  attentionCase("a mask for each head, causal, a past", {
    q: [2, 2, 3, 4],
    k: [2, 2, 4, 4],
    mask: tensor("attn_mask", [2, 2, 3, 9], "float32", 2),
    pastKey: past(4, "past_key"),
    pastValue: past(4, "past_value"),
    causal: true,
    mode: 3,
    via: ["attention/merge"],
  }),
  attentionCase("a mask of bools for all heads, a row of nothing", {
    q: [2, 4, 3, 8],
    k: [2, 2, 6, 8],
    mask: bools("attn_mask", [3, 6], (i) => i < 6 || (i >= 12 && i % 2 === 0)),
    mode: 3,
    via: hides,
  }),
  attentionCase("a mask of bools for each head", {
    q: [2, 4, 3, 8],
    k: [2, 2, 6, 8],
    mask: bools("attn_mask", [2, 4, 3, 6], (i) => window(i % 6, Math.floor(i / 6) % 4)),
    softcap: 2,
    via: hides,
  }),
  attentionCase("a mask of three axes for all sequences", {
    q: [2, 2, 3, 4],
    k: [2, 2, 4, 4],
    mask: tensor("attn_mask", [2, 3, 4]),
    via: ["attention/merge"],
  }),
  attentionCase("sequences of other lengths, causal", { q: [3, 2, 3, 8], k: [3, 1, 7, 8], valid: [7, 4, 2], causal: true, via: dense }),
  attentionCase("sequences of other lengths, a mask", {
    q: [2, 2, 2, 8],
    k: [2, 2, 6, 8],
    valid: [3, 6],
    mask: tensor("attn_mask", [2, 1, 2, 4]),
    via: ["attention/merge"],
  }),
  attentionCase("float16 with a past", {
    type: "float16",
    q: [2, 4, 3, 8],
    k: [2, 2, 3, 8],
    flat: true,
    pastKey: past(8, "past_key", "float16"),
    pastValue: past(8, "past_value", "float16"),
    causal: true,
    presents: true,
    via: [...dense, "kv-cache/append"],
  }),
  attentionCase("float16 with a mask, softmax in float32", {
    type: "float16",
    q: [1, 2, 3, 8],
    k: [1, 2, 5, 8],
    mask: tensor("attn_mask", [3, 5], "float16"),
    attributes: { softmax_precision: 1 },
    via: ["attention/merge"],
  }),
];

function rotaryCase(
  name: string,
  shape: readonly [number, number, number, number],
  half: number,
  given: "ids" | "none" | "first",
  interleaved: boolean,
  asFlat = false,
): MadeCase {
  const [batch, heads, tokens, width] = shape;
  const x = tensor("input", shape);
  const [rows, table] = given === "none" ? [batch * tokens, [batch, tokens, half]] : [9, [9, half]];
  // Not on the unit circle, as ONNX's own are not.
  const [cos, sin] = [tensor("cos_cache", table), tensor("sin_cache", table)];
  const ids = range(batch * tokens).map((i) => (5 * i + 3) % rows);
  const row = (b: number, t: number): number => ({ ids: ids[b * tokens + t] as number, none: b * tokens + t, first: 4 + t })[given];
  const output: MadeTensor = { ...x, name: "output", values: rounded("float32", plainRotary(x, cos, sin, row, interleaved)) };
  const positions = { ids: whole("position_ids", ids, [batch, tokens]), none: undefined, first: whole("position_ids", [4]) }[given];
  const turned = (one: MadeTensor): MadeTensor => (asFlat ? flat(one) : one);
  const contrib = given === "first";
  return {
    name: `rotary: ${name}`,
    node: {
      operator: "RotaryEmbedding",
      ...(contrib && { domain: "com.microsoft" }),
      attributes: {
        ...(interleaved && { interleaved: 1 }),
        ...(asFlat && { num_heads: heads }),
        ...(2 * half < width && { rotary_embedding_dim: 2 * half }),
      },
    },
    inputs: contrib ? [turned(x), positions, cos, sin] : [turned(x), cos, sin, positions],
    outputs: [turned(output)],
    via: ["attention/rope"],
    sees: 1e-3,
  };
}

function softmaxCase(name: string, x: MadeTensor, axis: number | undefined, sees: number): MadeCase {
  const last = axis === undefined || axis < 0 ? x.shape.length + (axis ?? -1) : axis;
  const [inner, length] = [x.shape.slice(last + 1).reduce((a, b) => a * b, 1), x.shape[last] as number];
  const values = [...x.values];
  for (const start of range(x.values.length).filter((i) => Math.floor(i / inner) % length === 0)) {
    const row = plainSoftmax(range(length).map((i) => x.values[start + i * inner] as number));
    for (const [i, one] of row.entries()) values[start + i * inner] = one;
  }
  const output = { ...x, name: "y", values: rounded(x.type, values) };
  return {
    name: `softmax: ${name}`,
    node: { operator: "Softmax", ...(axis !== undefined && { attributes: { axis } }) },
    inputs: [x],
    outputs: [output],
    via: ["attention/decode over unit vectors"],
    sees,
  };
}

function topKCase(name: string, x: MadeTensor, axis: number, k: number, largest: boolean): MadeCase {
  const [inner, length] = [x.shape.slice(axis + 1).reduce((a, b) => a * b, 1), x.shape[axis] as number];
  const shape = x.shape.map((size, i) => (i === axis ? k : size));
  const count = shape.reduce((a, b) => a * b, 1);
  const [values, indices] = [new Array<number>(count), new Array<number>(count)];
  for (const start of range(x.values.length).filter((i) => Math.floor(i / inner) % length === 0)) {
    const at = (i: number): number => x.values[start + i * inner] as number;
    const order = range(length).sort((a, b) => (largest ? at(b) - at(a) : at(a) - at(b)) || a - b);
    const first = Math.floor(start / (inner * length)) * inner * k + (start % inner);
    for (const place of range(k)) {
      values[first + place * inner] = at(order[place] as number);
      indices[first + place * inner] = order[place] as number;
    }
  }
  return {
    name: `top k: ${name}`,
    node: { operator: "TopK", attributes: { axis, ...(largest ? {} : { largest: 0 }) } },
    inputs: [x, whole("k", [k])],
    outputs: [{ name: "values", type: x.type, shape, values }, whole("indices", indices, shape)],
    via: ["search/scan"],
    sees: 1e-6,
  };
}

const ties: MadeTensor = {
  name: "x",
  type: "float32",
  shape: [3, 4],
  values: [1, 3, 3, 1, -2, -2, -2, 0, 5, Number.NEGATIVE_INFINITY, 5, 7],
};

export const otherCases: readonly MadeCase[] = [
  rotaryCase("halves", [2, 3, 4, 8], 4, "ids", false),
  rotaryCase("interleaved, a part of the head, flat", [2, 3, 4, 8], 2, "ids", true, true),
  rotaryCase("tables with a row for each token", [2, 2, 3, 6], 3, "none", false),
  rotaryCase("of com.microsoft, from a first position", [1, 2, 4, 6], 3, "first", true),
  softmaxCase("the first axis", tensor("x", [4, 3, 2], "float32", 3), 0, 1e-3),
  softmaxCase(
    "the last axis, infinities and what is no number",
    { ...tensor("x", [3, 4]), values: [1, 2, -1 / 0, 0, 1 / 0, 0, 1, 2, 0, Number.NaN, 1, 2] },
    undefined,
    1e-3,
  ),
  softmaxCase("float16", tensor("x", [2, 5], "float16"), -1, 0.1),
  topKCase("the largest, with ties", ties, 1, 3, true),
  topKCase("the smallest, of the first axis", ties, 0, 2, false),
];
