/** onnxruntime-node's Attention (ai.onnx 23) over keys and values given as inputs: the fastest of its ways from JavaScript. */
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
  readonly Tensor: new (type: string, data: Float32Array | Uint16Array, dims: readonly number[]) => Tensor;
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
    async bind({ queryHeads, kvHeads, tokens, dim, dtype, queries, keys, values }) {
      const shapes = { Q: [1, queryHeads, 1, dim], K: [1, kvHeads, tokens, dim], V: [1, kvHeads, tokens, dim] };
      const session = await runtime.InferenceSession.create(attentionModel(dtype, shapes, [1, queryHeads, 1, dim]), options);
      const type = dtype === "f32" ? "float32" : "float16";
      const feeds = {
        Q: new runtime.Tensor(type, queries, shapes.Q),
        K: new runtime.Tensor(type, keys, shapes.K),
        V: new runtime.Tensor(type, values, shapes.V),
      };
      return async () => ((await session.run(feeds)) as { Y: Tensor }).Y.data;
    },
  };
}

/** A model of one node, in ONNX's protobuf (onnx.proto, ir version 10). */
function attentionModel(dtype: "f32" | "f16", inputs: Record<string, readonly number[]>, output: readonly number[]): Uint8Array {
  const element = dtype === "f32" ? 1 : 10;
  const value = (name: string, shape: readonly number[]): number[] => {
    const dims = shape.flatMap((size) => field(1, field(1, size)));
    return [...field(1, name), ...field(2, field(1, [...field(1, element), ...field(2, dims)]))];
  };
  const names = Object.keys(inputs);
  const node = [...names.flatMap((name) => field(1, name)), ...field(2, "Y"), ...field(4, "Attention")];
  const graph = [
    ...field(1, node),
    ...field(2, "decode"),
    ...names.flatMap((name) => field(11, value(name, inputs[name] as readonly number[]))),
    ...field(12, value("Y", output)),
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
