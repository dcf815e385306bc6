/** Checking a model's sizes and finding its weights by name: what GGUF and safetensors share. */
import { FormatError } from "../../errors.js";
import { widenRow } from "../../op/elements.js";
import type { LayerWeights, ModelConfig, ModelWeights, Weight } from "../config.js";

export interface NamedTensor {
  readonly shape: readonly number[];
  readonly weight: Weight;
}

/** Names of the tensors of a format; `layer` ones get the layer's number. */
export interface TensorNames {
  readonly embedding: string;
  readonly norm: string;
  readonly output: string;
  layer(i: number, part: LayerPart): string;
}
export type LayerPart =
  | "attentionNorm"
  | "query"
  | "key"
  | "value"
  | "queryBias"
  | "keyBias"
  | "valueBias"
  | "attentionOut"
  | "feedForwardNorm"
  | "gate"
  | "up"
  | "down";

/** Finds and checks every weight. The output layer is the embedding where there is none. Throws FormatError. */
export function weightsByName(
  where: string,
  { dim, layers, heads, kvHeads, headDim, hiddenDim, vocab }: ModelConfig,
  tensors: ReadonlyMap<string, NamedTensor>,
  names: TensorNames,
): ModelWeights {
  const find = (name: string, shape: readonly number[]): Weight => {
    const found = tensors.get(name);
    if (!found) throw new FormatError({ where, expected: `a tensor ${name}`, received: `${tensors.size} tensors without it` });
    if (found.shape.join() !== shape.join())
      throw new FormatError({ where, expected: `${name} [${shape.join(", ")}]`, received: `[${found.shape.join(", ")}]` });
    return found.weight;
  };
  const vector = (name: string, size: number): Float32Array => asF32(find(name, [size]), size);
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim];
  const layer = (i: number): LayerWeights => {
    const name = (part: LayerPart): string => names.layer(i, part);
    const bias = (part: "queryBias" | "keyBias" | "valueBias", size: number) =>
      tensors.has(name(part)) ? { [part]: vector(name(part), size) } : {};
    return {
      attentionNorm: vector(name("attentionNorm"), dim),
      query: find(name("query"), [width, dim]),
      key: find(name("key"), [kvWidth, dim]),
      value: find(name("value"), [kvWidth, dim]),
      ...bias("queryBias", width),
      ...bias("keyBias", kvWidth),
      ...bias("valueBias", kvWidth),
      attentionOut: find(name("attentionOut"), [dim, width]),
      feedForwardNorm: vector(name("feedForwardNorm"), dim),
      gate: find(name("gate"), [hiddenDim, dim]),
      up: find(name("up"), [hiddenDim, dim]),
      down: find(name("down"), [dim, hiddenDim]),
    };
  };
  const embedding = find(names.embedding, [vocab, dim]);
  return {
    embedding,
    layers: Array.from({ length: layers }, (_, i) => layer(i)),
    norm: vector(names.norm, dim),
    output: tensors.has(names.output) ? find(names.output, [vocab, dim]) : embedding,
  };
}

/** A stored vector as f32. */
export function asF32({ dtype, data }: Weight, size: number): Float32Array {
  if (dtype === "f32") return data as Float32Array;
  const wide = new Float64Array(size);
  widenRow(dtype, data, 0, wide);
  return Float32Array.from(wide);
}

/** Throws FormatError where sizes are no model's. */
export function checkConfig(where: string, config: ModelConfig): ModelConfig {
  const { heads, kvHeads, headDim, rotaryPairs } = config;
  for (const name of ["dim", "layers", "heads", "kvHeads", "headDim", "hiddenDim", "vocab", "context", "rotaryPairs"] as const)
    if (!(Number.isInteger(config[name]) && config[name] >= 1 && config[name] < 2 ** 24))
      throw new FormatError({ where, expected: `${name} to be a whole number from 1 to ${2 ** 24 - 1}`, received: `${config[name]}` });
  const limits: [number, number, string][] = [
    [heads, 65536, "heads"],
    [headDim, 4096, "headDim"],
    [config.layers, 4096, "layers"],
    [2 * rotaryPairs, headDim, "turned components"],
  ];
  for (const [value, most, name] of limits)
    if (value > most) throw new FormatError({ where, expected: `${name} of at most ${most}`, received: `${value}` });
  if (heads % kvHeads !== 0)
    throw new FormatError({ where, expected: "heads to be a multiple of KV heads", received: `${heads} and ${kvHeads}` });
  for (const name of ["normEpsilon", "ropeTheta"] as const)
    if (!(config[name] >= 0 && config[name] < 1e30) || (name === "ropeTheta" && config[name] < 1))
      throw new FormatError({ where, expected: `a plausible ${name}`, received: `${config[name]}` });
  return config;
}
