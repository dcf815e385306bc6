/** The tiny model as GGUF and safetensors files, for tests: metadata by an npm package, tensors by hand. */
import { toF16, toQ8Rows } from "@hotset/core";
import { type GGUFTypedMetadata, GGUFValueType, serializeGgufMetadata } from "@huggingface/gguf";

export type StoredAs = "f32" | "f16" | "q8_0";

export interface TinyWeights {
  readonly sizes: { dim: number; hidden: number; layers: number; heads: number; kvHeads: number; vocab: number; context: number };
  /** Rows of each matrix, and its values; names as in GGUF. */
  readonly tensors: ReadonlyMap<string, { shape: readonly number[]; values: Float32Array }>;
}

/** The tensors of a llama2.c file, by their names in GGUF. */
export function tensorsOf(bytes: Uint8Array): TinyWeights {
  const [dim, hidden, layers, heads, kvHeads, vocab, context] = new Int32Array(
    bytes.buffer,
    bytes.byteOffset,
    7,
  ) as unknown as number[] as [number, number, number, number, number, number, number];
  const kv = (dim / heads) * kvHeads;
  const tensors = new Map<string, { shape: readonly number[]; values: Float32Array }>();
  let at = 28;
  const take = (name: string, ...shape: number[]) => {
    const count = shape.reduce((product, size) => product * size, 1);
    tensors.set(name, { shape, values: new Float32Array(bytes.buffer, bytes.byteOffset + at, count) });
    at += 4 * count;
  };
  const each = (name: string, ...shape: number[]) => {
    for (let i = 0; i < layers; i++) take(`blk.${i}.${name}.weight`, ...shape);
  };
  take("token_embd.weight", vocab, dim);
  each("attn_norm", dim);
  each("attn_q", dim, dim);
  each("attn_k", kv, dim);
  each("attn_v", kv, dim);
  each("attn_output", dim, dim);
  each("ffn_norm", dim);
  each("ffn_gate", hidden, dim);
  each("ffn_down", dim, hidden);
  each("ffn_up", hidden, dim);
  take("output_norm.weight", dim);
  return { sizes: { dim, hidden, layers, heads, kvHeads, vocab, context }, tensors };
}

const typeOf: Readonly<Record<StoredAs, number>> = { f32: 0, f16: 1, q8_0: 8 };

/** A GGUF file of version 3. Vectors stay f32. */
export function writeGguf({ sizes, tensors }: TinyWeights, storedAs: StoredAs, vocabulary: GGUFTypedMetadata): Uint8Array {
  const number = (value: number) => ({ value, type: GGUFValueType.UINT32 });
  const metadata = {
    ...vocabulary,
    version: number(3),
    tensor_count: { value: BigInt(tensors.size), type: GGUFValueType.UINT64 },
    kv_count: { value: 0n, type: GGUFValueType.UINT64 },
    "general.architecture": { value: "llama", type: GGUFValueType.STRING },
    "llama.embedding_length": number(sizes.dim),
    "llama.block_count": number(sizes.layers),
    "llama.feed_forward_length": number(sizes.hidden),
    "llama.attention.head_count": number(sizes.heads),
    "llama.attention.head_count_kv": number(sizes.kvHeads),
    "llama.context_length": number(sizes.context),
    "llama.attention.layer_norm_rms_epsilon": { value: 1e-5, type: GGUFValueType.FLOAT32 },
  };
  // Not padded: the list of tensors follows, and only then the data on 32 bytes.
  const head = serializeGgufMetadata(metadata as unknown as GGUFTypedMetadata, { alignment: 1 });
  return join(head, tensors, storedAs);
}

function join(head: Uint8Array, tensors: TinyWeights["tensors"], storedAs: StoredAs): Uint8Array {
  const parts: Uint8Array[] = [head];
  const data: { at: number; bytes: Uint8Array }[] = [];
  let offset = 0;
  const u32 = (value: number) => new Uint8Array(new Uint32Array([value]).buffer);
  const u64 = (value: number) => new Uint8Array(new BigUint64Array([BigInt(value)]).buffer);
  for (const [name, { shape, values }] of tensors) {
    const kind = shape.length === 1 ? "f32" : storedAs;
    const stored = kind === "f16" ? toF16(values) : kind === "q8_0" ? toQ8Rows(values, shape.at(-1) as number) : values;
    const bytes = new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
    const text = new TextEncoder().encode(name);
    parts.push(u64(text.length), text, u32(shape.length), ...[...shape].reverse().map(u64), u32(typeOf[kind]), u64(offset));
    data.push({ at: offset, bytes });
    offset = Math.ceil((offset + bytes.length) / 32) * 32;
  }
  const headLength = parts.reduce((sum, { length }) => sum + length, 0);
  const start = Math.ceil(headLength / 32) * 32;
  const file = new Uint8Array(start + offset);
  let at = 0;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  for (const { at: from, bytes } of data) file.set(bytes, start + from);
  return file;
}

const llamaNames: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

/** Names and rows as Hugging Face has them: the rows of queries and keys so that halves of a head are pairs. */
function renamed({ sizes: { dim, heads }, tensors }: TinyWeights): Map<string, { shape: readonly number[]; values: Float32Array }> {
  const size = dim / heads;
  const out = new Map<string, { shape: readonly number[]; values: Float32Array }>();
  for (const [name, { shape, values }] of tensors) {
    const [, layer, part] = /^blk\.(\d+)\.(\w+)\.weight$/.exec(name) ?? [];
    if (!part) {
      out.set(name === "output_norm.weight" ? "model.norm.weight" : "model.embed_tokens.weight", { shape, values });
      continue;
    }
    const turned = values.slice();
    if (part === "attn_q" || part === "attn_k")
      for (let row = 0; row < (shape[0] as number); row++) {
        const [head, i] = [Math.floor(row / size) * size, row % size];
        const to = head + (i % 2) * (size / 2) + (i >> 1);
        turned.set(values.subarray(row * dim, (row + 1) * dim), to * dim);
      }
    out.set(`model.layers.${layer}.${llamaNames[part]}.weight`, { shape, values: turned });
  }
  return out;
}

/** A safetensors file in f32, as the format's page describes it. */
export function writeSafetensors(weights: TinyWeights): Uint8Array {
  return oneFile([...renamed(weights)]);
}
writeSafetensors.shards = (weights: TinyWeights, count: number): Uint8Array[] => {
  const all = [...renamed(weights)];
  return Array.from({ length: count }, (_, shard) => oneFile(all.filter((__, i) => i % count === shard)));
};

function oneFile(tensors: readonly [string, { shape: readonly number[]; values: Float32Array }][]): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let at = 0;
  for (const [name, { shape, values }] of tensors) {
    header[name] = { dtype: "F32", shape, data_offsets: [at, at + values.byteLength] };
    at += values.byteLength;
  }
  let text = JSON.stringify(header);
  while (text.length % 8) text += " ";
  const file = new Uint8Array(8 + text.length + at);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(new TextEncoder().encode(text), 8);
  at = 8 + text.length;
  for (const [, { values }] of tensors) {
    file.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at);
    at += values.byteLength;
  }
  return file;
}
