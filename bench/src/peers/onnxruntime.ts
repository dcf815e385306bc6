/**
 * onnxruntime-node's Attention (ai.onnx 23) over keys and values given as inputs: the fastest of its ways from JavaScript.
 * Over a part of the context: Gather of whole pages, then Attention; it has no other way. Many tokens at once:
 * GroupQueryAttention (com.microsoft), the fastest for that; the cache that it makes is not asked for, so not copied.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { fetchPackage } from "@hotset/examples/data";

/** The newest that installs. Fetched when asked for: 270 MB unpacked, without its scripts (they fetch CUDA). */
const version = "1.30.0";

export interface DecodeJob {
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly tokens: number;
  readonly dim: number;
  readonly dtype: "f32" | "f16";
  /** [queryHeads, dim]; keys and values [kvHeads, tokens, dim]; f16 as bits, all three. */
  readonly queries: Float32Array | Uint16Array;
  readonly keys: Float32Array | Uint16Array;
  readonly values: Float32Array | Uint16Array;
  /** Attends only to these pages of so many tokens, the same for all heads. */
  readonly listed?: { readonly pageSize: number; readonly pages: readonly number[] };
}

export interface PrefillJob {
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly tokens: number;
  readonly dim: number;
  readonly dtype: "f32" | "f16";
  /** [tokens, heads, dim], each; f16 as bits. */
  readonly queries: Float32Array | Uint16Array;
  readonly keys: Float32Array | Uint16Array;
  readonly values: Float32Array | Uint16Array;
}

export interface DecodePeer {
  readonly name: string;
  readonly version: string;
  readonly settings: string;
  /** A step, ready to be run over and over: out [queryHeads, dim]. */
  bind(job: DecodeJob): Promise<() => Promise<Float32Array | Uint16Array>>;
  /** Causal attention of all tokens: out [tokens, queryHeads, dim]. */
  bindPrefill(job: PrefillJob): Promise<() => Promise<Float32Array | Uint16Array>>;
}

interface Tensor {
  readonly data: Float32Array | Uint16Array;
}
interface Runtime {
  readonly Tensor: new (type: string, data: Float32Array | Uint16Array | Int32Array | BigInt64Array, dims: readonly number[]) => Tensor;
  readonly InferenceSession: {
    create(model: Uint8Array, options: object): Promise<{ run(feeds: Record<string, Tensor>): Promise<Record<string, Tensor>> }>;
  };
}

/** The peer, or why it is missing. */
export async function onnxruntime(threads: number): Promise<DecodePeer | string> {
  let runtime: Runtime;
  try {
    const { folder } = await fetchPackage("onnxruntime-node", version, 270e6);
    runtime = createRequire(join(folder, "package.json"))(folder) as Runtime;
  } catch (error) {
    return `onnxruntime-node: ${(error as Error).message.split("\n")[0]}`;
  }
  const options = {
    executionProviders: ["cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: "sequential",
    graphOptimizationLevel: "all",
  };
  return {
    name: "onnxruntime-node Attention",
    version,
    settings: `${threads} threads, all graph optimisations`,
    async bind({ queryHeads, kvHeads, tokens, dim, dtype, queries, keys, values, listed }) {
      const out = [1, queryHeads, 1, dim];
      const type = dtype === "f32" ? "float32" : "float16";
      const cached = listed ? [1, kvHeads, tokens / listed.pageSize, listed.pageSize * dim] : [1, kvHeads, tokens, dim];
      const model = listed
        ? gatheredModel(dtype, out, cached, listed.pages.length, [1, kvHeads, listed.pages.length * listed.pageSize, dim])
        : attentionModel(dtype, out, cached);
      const session = await runtime.InferenceSession.create(model, options);
      const feeds = {
        Q: new runtime.Tensor(type, queries, out),
        K: new runtime.Tensor(type, keys, cached),
        V: new runtime.Tensor(type, values, cached),
        ...(listed ? { I: new runtime.Tensor("int64", BigInt64Array.from(listed.pages, BigInt), [listed.pages.length]) } : {}),
      };
      return async () => ((await session.run(feeds)) as { Y: Tensor }).Y.data;
    },
    async bindPrefill({ queryHeads, kvHeads, tokens, dim, dtype, queries, keys, values }) {
      const session = await runtime.InferenceSession.create(groupedModel(dtype, tokens, queryHeads, kvHeads, dim), options);
      const type = dtype === "f32" ? "float32" : "float16";
      const none = dtype === "f32" ? new Float32Array(0) : new Uint16Array(0);
      const tensor = (data: Float32Array | Uint16Array, shape: readonly number[]): Tensor => new runtime.Tensor(type, data, shape);
      const feeds = {
        Q: tensor(queries, [1, tokens, queryHeads * dim]),
        K: tensor(keys, [1, tokens, kvHeads * dim]),
        V: tensor(values, [1, tokens, kvHeads * dim]),
        pastK: tensor(none, [1, kvHeads, 0, dim]),
        pastV: tensor(none, [1, kvHeads, 0, dim]),
        last: new runtime.Tensor("int32", Int32Array.of(tokens - 1), [1]),
        total: new runtime.Tensor("int32", Int32Array.of(tokens), [1]),
      };
      return async () => ((await session.run(feeds)) as { Y: Tensor }).Y.data;
    },
  };
}

/** GroupQueryAttention behind an empty past. */
function groupedModel(dtype: "f32" | "f16", tokens: number, queryHeads: number, kvHeads: number, dim: number): Uint8Array {
  const type = elements[dtype];
  const integer = (name: string, number: number): number[] => field(5, [...field(1, name), ...field(3, number), ...field(20, 2)]);
  const inputs: readonly (readonly [string, number, readonly number[]])[] = [
    ["Q", type, [1, tokens, queryHeads * dim]],
    ["K", type, [1, tokens, kvHeads * dim]],
    ["V", type, [1, tokens, kvHeads * dim]],
    ["pastK", type, [1, kvHeads, 0, dim]],
    ["pastV", type, [1, kvHeads, 0, dim]],
    ["last", elements.i32, [1]],
    ["total", elements.i32, [1]],
  ];
  const attention = [
    ...inputs.flatMap(([name]) => field(1, name)),
    ...["Y", "nextK", "nextV"].flatMap((name) => field(2, name)),
    ...field(4, "GroupQueryAttention"),
    ...integer("num_heads", queryHeads),
    ...integer("kv_num_heads", kvHeads),
    ...field(7, "com.microsoft"),
  ];
  return model(
    [attention],
    inputs.map((input) => value(...input)),
    value("Y", type, [1, tokens, queryHeads * dim]),
  );
}

/** One node. */
function attentionModel(dtype: "f32" | "f16", out: readonly number[], cached: readonly number[]): Uint8Array {
  const type = dtype === "f32" ? elements.f32 : elements.f16;
  return model(
    [node("Attention", ["Q", "K", "V"], "Y")],
    [value("Q", type, out), value("K", type, cached), value("V", type, cached)],
    value("Y", type, out),
  );
}

/** Pages are gathered, keys and values; then the same node. */
function gatheredModel(
  dtype: "f32" | "f16",
  out: readonly number[],
  cached: readonly number[],
  pages: number,
  gathered: readonly number[],
): Uint8Array {
  const type = dtype === "f32" ? elements.f32 : elements.f16;
  const axis = [...field(1, "axis"), ...field(3, 2), ...field(20, 2)];
  const shape = new Uint8Array(BigInt64Array.from(gathered, BigInt).buffer);
  return model(
    [
      ...["K", "V"].flatMap((name) => [
        node("Gather", [name, "I"], `${name}pages`, axis),
        node("Reshape", [`${name}pages`, "shape"], `${name}listed`),
      ]),
      node("Attention", ["Q", "Klisted", "Vlisted"], "Y"),
    ],
    [value("Q", type, out), value("K", type, cached), value("V", type, cached), value("I", elements.i64, [pages])],
    value("Y", type, out),
    [...field(1, gathered.length), ...field(2, elements.i64), ...field(8, "shape"), ...field(9, [...shape])],
  );
}

const elements = { f32: 1, i32: 6, i64: 7, f16: 10 } as const;

// ONNX's protobuf (onnx.proto, ir version 10).

function value(name: string, element: number, shape: readonly number[]): number[] {
  const dims = shape.flatMap((size) => field(1, field(1, size)));
  return [...field(1, name), ...field(2, field(1, [...field(1, element), ...field(2, dims)]))];
}

const node = (type: string, inputs: readonly string[], output: string, attribute?: readonly number[]): number[] => [
  ...inputs.flatMap((name) => field(1, name)),
  ...field(2, output),
  ...field(4, type),
  ...(attribute ? field(5, attribute) : []),
];

function model(
  nodes: readonly number[][],
  inputs: readonly number[][],
  output: readonly number[],
  initializer?: readonly number[],
): Uint8Array {
  const graph = [
    ...nodes.flatMap((one) => field(1, one)),
    ...field(2, "decode"),
    ...(initializer ? field(5, initializer) : []),
    ...inputs.flatMap((one) => field(11, one)),
    ...field(12, output),
  ];
  return Uint8Array.from([...field(1, 10), ...field(7, graph), ...opset("", 23), ...opset("com.microsoft", 1)]);
}

const opset = (domain: string, version: number): number[] => field(8, [...field(1, domain), ...field(2, version)]);

/** A protobuf field: a number, a string, or a message. */
function field(number: number, content: number | string | readonly number[]): number[] {
  if (typeof content === "number") return [...varint(8 * number), ...varint(content)];
  const bytes = typeof content === "string" ? [...new TextEncoder().encode(content)] : content;
  return [...varint(8 * number + 2), ...varint(bytes.length), ...bytes];
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return [...bytes, rest];
}
