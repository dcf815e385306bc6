/**
 * onnxruntime-node's Attention (ai.onnx 23) over keys and values given as inputs: the fastest of its ways from JavaScript.
 * Over a part of the context: Gather of whole pages, then Attention; it has no other way.
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

export interface DecodePeer {
  readonly name: string;
  readonly version: string;
  readonly settings: string;
  /** A step, ready to be run over and over: out [queryHeads, dim]. */
  bind(job: DecodeJob): Promise<() => Promise<Float32Array | Uint16Array>>;
}

interface Tensor {
  readonly data: Float32Array | Uint16Array;
}
interface Runtime {
  readonly Tensor: new (type: string, data: Float32Array | Uint16Array | BigInt64Array, dims: readonly number[]) => Tensor;
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
  };
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

const elements = { f32: 1, i64: 7, f16: 10 } as const;

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
  return Uint8Array.from([...field(1, 10), ...field(7, graph), ...field(8, [...field(1, ""), ...field(2, 23)])]);
}

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
