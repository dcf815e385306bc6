/** GGUF files of Llama's architecture, and Qwen2's, with the vocabulary they hold. */
import { FormatError } from "../../errors.js";
import type { LoadedModel, ModelConfig, Tokenizer } from "../config.js";
import { BytePairTokenizer, preTokenizers } from "../tokenizer/byte-pairs.js";
import { PieceTokenizer } from "../tokenizer/pieces.js";
import { type GgufValue, readGgufFile } from "./gguf-file.js";
import { asF32, checkConfig, type LayerPart, weightsByName } from "./weights-by-name.js";

const where = "GGUF model";

/** How each architecture's files pair the components that rotary embedding turns: Llama's are stored permuted. */
const architectures: Readonly<Record<string, ModelConfig["ropePairs"]>> = { llama: "interleaved", qwen2: "half" };

const parts: Readonly<Record<LayerPart, string>> = {
  attentionNorm: "attn_norm.weight",
  query: "attn_q.weight",
  key: "attn_k.weight",
  value: "attn_v.weight",
  queryBias: "attn_q.bias",
  keyBias: "attn_k.bias",
  valueBias: "attn_v.bias",
  attentionOut: "attn_output.weight",
  feedForwardNorm: "ffn_norm.weight",
  gate: "ffn_gate.weight",
  up: "ffn_up.weight",
  down: "ffn_down.weight",
};

/** Reads a GGUF file with weights in f32, f16, bf16 or q8_0. Throws FormatError. */
export function readGguf(bytes: Uint8Array): LoadedModel {
  const { metadata, tensors } = readGgufFile(bytes);
  const values = new Values(metadata);
  const architecture = values.text("general.architecture");
  const ropePairs = architectures[architecture];
  if (!ropePairs) throw wrong(`an architecture of ${Object.keys(architectures).join(", ")}`, JSON.stringify(architecture));
  const of = (name: string, otherwise?: number): number => values.number(`${architecture}.${name}`, otherwise);
  const dim = of("embedding_length");
  const heads = of("attention.head_count");
  const headDim = of("attention.key_length", dim / heads);
  const rotaryPairs = of("rope.dimension_count", headDim) / 2;
  const ropeTheta = of("rope.freq_base", 10000);
  const vocab = tensors.get("token_embd.weight")?.shape[0] ?? 0;
  const config = checkConfig(where, {
    format: `GGUF ${architecture}`,
    dim,
    layers: of("block_count"),
    heads,
    kvHeads: of("attention.head_count_kv", heads),
    headDim,
    hiddenDim: of("feed_forward_length"),
    vocab,
    context: of("context_length"),
    normEpsilon: of("attention.layer_norm_rms_epsilon"),
    ropeTheta,
    ropePairs,
    rotaryPairs,
  });
  const frequencies = ropeFrequencies(values, architecture, config, tensors.get("rope_freqs.weight"));
  return {
    config: frequencies ? { ...config, ropeFrequencies: frequencies } : config,
    weights: weightsByName(where, config, tensors, {
      embedding: "token_embd.weight",
      norm: "output_norm.weight",
      output: "output.weight",
      layer: (i, part) => `blk.${i}.${parts[part]}`,
    }),
    tokenizer: readTokenizer(values, vocab),
  };
}

/** Frequencies that do not follow from theta alone: stretched, or divided one by one. */
function ropeFrequencies(
  values: Values,
  architecture: string,
  { rotaryPairs, ropeTheta }: ModelConfig,
  factors: Parameters<typeof frequencyFactors>[0] | undefined,
): Float32Array | undefined {
  const scaling = values.has(`${architecture}.rope.scaling.type`) ? values.text(`${architecture}.rope.scaling.type`) : "none";
  if (scaling !== "none" && scaling !== "linear") throw wrong("rotary scaling of none or linear", JSON.stringify(scaling));
  const stretch = scaling === "linear" ? values.number(`${architecture}.rope.scaling.factor`) : 1;
  if (!(stretch > 0)) throw wrong("a rotary scaling factor above 0", `${stretch}`);
  if (stretch === 1 && !factors) return undefined;
  const divided = factors ? frequencyFactors(factors, rotaryPairs) : undefined;
  return Float32Array.from({ length: rotaryPairs }, (_, i) => ropeTheta ** (-i / rotaryPairs) / stretch / (divided?.[i] ?? 1));
}

function frequencyFactors(
  { shape, weight }: { shape: readonly number[]; weight: Parameters<typeof asF32>[0] },
  pairs: number,
): Float32Array {
  if (shape.join() !== `${pairs}`) throw wrong(`rope_freqs.weight [${pairs}]`, `[${shape.join(", ")}]`);
  const factors = asF32(weight, pairs);
  if (!factors.every((factor) => factor > 0)) throw wrong("rope_freqs.weight above 0", "others");
  return factors;
}

const kinds = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

function readTokenizer(values: Values, vocab: number): Tokenizer {
  const kind = values.text("tokenizer.ggml.model");
  const tokens = values.texts("tokenizer.ggml.tokens");
  if (tokens.length > vocab) throw wrong(`at most ${vocab} tokens, as the embedding has`, `${tokens.length}`);
  const types = values.numbers("tokenizer.ggml.token_type", tokens.length) ?? new Float64Array(tokens.length).fill(kinds.normal);
  const id = (name: string): number | undefined => {
    if (!values.has(`tokenizer.ggml.${name}`)) return undefined;
    const value = values.number(`tokenizer.ggml.${name}`);
    if (!(Number.isInteger(value) && value >= 0 && value < tokens.length)) throw wrong(`${name} below ${tokens.length}`, `${value}`);
    return value;
  };
  const begin = id("bos_token_id");
  const ends = [id("eos_token_id"), id("eot_token_id")].filter((end) => end !== undefined);
  const control = new Set([...types.keys()].filter((i) => types[i] === kinds.control || types[i] === kinds.unknown));
  if (kind === "llama") {
    const scores = values.numbers("tokenizer.ggml.scores", tokens.length);
    if (!scores) throw wrong("tokenizer.ggml.scores", "none");
    if (scores.some(Number.isNaN)) throw wrong("scores that are numbers", "NaN");
    return new PieceTokenizer({
      pieces: tokens.map(withSpaces),
      scores,
      begin: values.flag("tokenizer.ggml.add_bos_token", true) ? begin : undefined,
      ends,
      unknown: id("unknown_token_id") ?? 0,
      bytes: byteTokens(tokens, types),
      spacePrefix: values.flag("tokenizer.ggml.add_space_prefix", true),
      control,
      where,
    });
  }
  if (kind !== "gpt2") throw wrong("a tokenizer of llama or gpt2", JSON.stringify(kind));
  const pre = values.has("tokenizer.ggml.pre") ? values.text("tokenizer.ggml.pre") : "gpt-2";
  if (!Object.hasOwn(preTokenizers, pre)) throw wrong(`a pre-tokenizer of ${Object.keys(preTokenizers).join(", ")}`, JSON.stringify(pre));
  return new BytePairTokenizer({
    tokens: tokens.map((token) => new TextDecoder().decode(token)),
    merges: values.texts("tokenizer.ggml.merges").map((merge) => new TextDecoder().decode(merge)),
    pre: pre as keyof typeof preTokenizers,
    begin: values.flag("tokenizer.ggml.add_bos_token", pre === "llama-bpe") ? begin : undefined,
    ends,
    control,
    where,
  });
}

/** SentencePiece's mark of a space, U+2581, as the space it stands for. */
function withSpaces(token: Uint8Array): Uint8Array {
  const out: number[] = [];
  for (let i = 0; i < token.length; i++) {
    const mark = token[i] === 0xe2 && token[i + 1] === 0x96 && token[i + 2] === 0x81;
    out.push(mark ? 0x20 : (token[i] as number));
    if (mark) i += 2;
  }
  return Uint8Array.from(out);
}

/** The tokens <0x00> to <0xFF>, where all of them are there. */
function byteTokens(tokens: readonly Uint8Array[], types: Float64Array): number[] | undefined {
  const bytes = new Array<number>(256).fill(-1);
  for (const [id, token] of tokens.entries()) {
    if (types[id] !== kinds.byte) continue;
    const found = /^<0x([0-9A-Fa-f]{2})>$/.exec(new TextDecoder().decode(token));
    if (found) bytes[Number.parseInt(found[1] as string, 16)] = id;
  }
  return bytes.includes(-1) ? undefined : bytes;
}

const wrong = (expected: string, received: string): FormatError => new FormatError({ where, expected, received });

/** Metadata by name and kind. */
class Values {
  readonly #values: ReadonlyMap<string, GgufValue>;

  constructor(values: ReadonlyMap<string, GgufValue>) {
    this.#values = values;
  }
  has(name: string): boolean {
    return this.#values.has(name);
  }
  number(name: string, otherwise?: number): number {
    const value = this.#values.get(name) ?? otherwise;
    // A size that may differ by layer is a list, of equal ones here.
    if (value instanceof Float64Array && value.length > 0 && value.every((each) => each === value[0])) return value[0] as number;
    if (typeof value !== "number") throw wrong(`a number ${name}`, value === undefined ? "none" : "something else");
    return value;
  }
  text(name: string): string {
    const value = this.#values.get(name);
    if (!(value instanceof Uint8Array)) throw wrong(`a text ${name}`, value === undefined ? "none" : "something else");
    return new TextDecoder().decode(value);
  }
  flag(name: string, otherwise: boolean): boolean {
    const value = this.#values.get(name) ?? otherwise;
    if (typeof value !== "boolean") throw wrong(`yes or no of ${name}`, "something else");
    return value;
  }
  texts(name: string): Uint8Array[] {
    const value = this.#values.get(name);
    if (!Array.isArray(value) || !value.every((each) => each instanceof Uint8Array))
      throw wrong(`a list of texts ${name}`, value === undefined ? "none" : "something else");
    return value;
  }
  numbers(name: string, length: number): Float64Array | undefined {
    const value = this.#values.get(name);
    if (value === undefined) return undefined;
    if (!(value instanceof Float64Array) || value.length !== length)
      throw wrong(`${length} numbers ${name}`, value instanceof Float64Array ? `${value.length}` : "something else");
    return value;
  }
}
