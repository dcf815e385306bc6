/** safetensors files of Llama's architecture, beside the config.json of Hugging Face. */
import { FormatError } from "../../errors.js";
import { readSafetensors } from "../../safetensors.js";
import type { LoadedModel, ModelConfig, Weight } from "../config.js";
import { asFloats, asWords } from "./reader.js";
import { checkConfig, type LayerPart, type NamedTensor, weightsByName } from "./weights-by-name.js";

const where = "safetensors model";

const dtypeNames: Readonly<Record<string, Weight["dtype"]>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** The weights of one file, as views of it. */
function weightsOf(file: Uint8Array): Map<string, NamedTensor> {
  const weights = new Map<string, NamedTensor>();
  for (const [name, { dtype: kind, shape, data }] of readSafetensors(file, where).tensors) {
    const dtype = dtypeNames[kind];
    // Masks and the like are no weights.
    if (!dtype && /^([IU](8|16|32|64)|BOOL|F64)$/.test(kind)) continue;
    if (!dtype) throw new FormatError({ where, expected: `${name} of dtype F32, F16 or BF16`, received: JSON.stringify(kind) });
    weights.set(name, { shape, weight: { dtype, data: dtype === "f32" ? asFloats(data) : asWords(data) } });
  }
  return weights;
}

const parts: Readonly<Record<LayerPart, string>> = {
  attentionNorm: "input_layernorm.weight",
  query: "self_attn.q_proj.weight",
  key: "self_attn.k_proj.weight",
  value: "self_attn.v_proj.weight",
  queryBias: "self_attn.q_proj.bias",
  keyBias: "self_attn.k_proj.bias",
  valueBias: "self_attn.v_proj.bias",
  attentionOut: "self_attn.o_proj.weight",
  feedForwardNorm: "post_attention_layernorm.weight",
  gate: "mlp.gate_proj.weight",
  up: "mlp.up_proj.weight",
  down: "mlp.down_proj.weight",
};

/** Reads the files of a model (one, or its shards) and its config.json. Throws FormatError. */
export function readSafetensorsModel(files: readonly Uint8Array[], configText: string): LoadedModel {
  const given = parsed(configText, "config.json in JSON");
  const number = (name: string, otherwise?: number): number => {
    const value = given[name] ?? otherwise;
    if (typeof value !== "number")
      throw new FormatError({ where, expected: `a number ${name} in config.json`, received: JSON.stringify(value) ?? "none" });
    return value;
  };
  const kind = given.model_type;
  if (kind !== "llama" && kind !== "qwen2" && kind !== "mistral")
    throw new FormatError({
      where,
      expected: "model_type of llama, mistral or qwen2 in config.json",
      received: JSON.stringify(kind) ?? "none",
    });
  if (given.hidden_act !== undefined && given.hidden_act !== "silu")
    throw new FormatError({ where, expected: "hidden_act of silu", received: JSON.stringify(given.hidden_act) });
  const tensors = new Map<string, NamedTensor>();
  for (const file of files)
    for (const [name, tensor] of weightsOf(file)) {
      if (tensors.has(name)) throw new FormatError({ where, expected: `one tensor ${name}`, received: "two" });
      tensors.set(name, tensor);
    }
  const dim = number("hidden_size");
  const heads = number("num_attention_heads");
  const headDim = number("head_dim", dim / heads);
  const config: ModelConfig = checkConfig(where, {
    format: `safetensors ${kind}`,
    dim,
    layers: number("num_hidden_layers"),
    heads,
    kvHeads: number("num_key_value_heads", heads),
    headDim,
    hiddenDim: number("intermediate_size"),
    vocab: number("vocab_size"),
    context: number("max_position_embeddings"),
    normEpsilon: number("rms_norm_eps", 1e-6),
    ropeTheta: number("rope_theta", 10000),
    ropePairs: "half",
    rotaryPairs: headDim / 2,
  });
  const frequencies = ropeFrequencies(given.rope_scaling, config);
  return {
    config: frequencies ? { ...config, ropeFrequencies: frequencies } : config,
    weights: weightsByName(where, config, tensors, {
      embedding: "model.embed_tokens.weight",
      norm: "model.norm.weight",
      output: given.tie_word_embeddings === true ? "" : "lm_head.weight",
      layer: (i, part) => `model.layers.${i}.${parts[part]}`,
    }),
  };
}

/** Llama 3's scaling, and stretched positions. */
function ropeFrequencies(scaling: unknown, { rotaryPairs, ropeTheta }: ModelConfig): Float32Array | undefined {
  if (scaling === undefined || scaling === null) return undefined;
  const given = record(scaling, "rope_scaling");
  const kind = given.rope_type ?? given.type;
  const number = (name: string): number => {
    const value = given[name];
    if (typeof value !== "number" || !(value > 0))
      throw new FormatError({ where, expected: `a number ${name} above 0 in rope_scaling`, received: JSON.stringify(value) ?? "none" });
    return value;
  };
  if (kind === "default") return undefined;
  const plain = (i: number): number => ropeTheta ** (-i / rotaryPairs);
  if (kind === "linear") return Float32Array.from({ length: rotaryPairs }, (_, i) => plain(i) / number("factor"));
  if (kind !== "llama3")
    throw new FormatError({ where, expected: "rope_scaling of linear or llama3", received: JSON.stringify(kind) ?? "none" });
  const [factor, low, high, old] = ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"].map(number) as [
    number,
    number,
    number,
    number,
  ];
  return Float32Array.from({ length: rotaryPairs }, (_, i) => {
    const turns = (old * plain(i)) / (2 * Math.PI);
    if (turns > high) return plain(i);
    if (turns < low) return plain(i) / factor;
    const share = (turns - low) / (high - low);
    return ((1 - share) * plain(i)) / factor + share * plain(i);
  });
}

function parsed(text: string, what: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError({ where, expected: what, received: "text that is none", cause });
  }
  return record(value, what);
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new FormatError({ where, expected: `an object: ${what}`, received: JSON.stringify(value)?.slice(0, 40) ?? "none" });
}
