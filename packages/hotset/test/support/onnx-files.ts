/** Writes ONNX's node tests: a model of one node and its tensors, in protocol buffers' wire format. For tests. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { toF16 } from "@hotset/core";

export interface MadeTensor {
  readonly name: string;
  readonly type: "float32" | "float16" | "float64" | "bool" | "int64" | "uint64";
  readonly shape: readonly number[];
  readonly values: readonly number[];
}

export interface MadeNode {
  readonly operator: string;
  readonly domain?: string;
  /** Whole numbers become INT, others FLOAT, unless they are of these names. */
  readonly attributes?: Readonly<Record<string, number | string>>;
}

const codes = { float32: 1, int64: 7, bool: 9, float16: 10, float64: 11, uint64: 13 } as const;
const floatAttributes = ["scale", "softcap"];

/** One folder of a node test; inputs and outputs that are left out are undefined. */
export function writeCase(
  folder: string,
  node: MadeNode,
  inputs: readonly (MadeTensor | undefined)[],
  outputs: readonly (MadeTensor | undefined)[],
): string {
  const set = join(folder, "test_data_set_0");
  mkdirSync(set, { recursive: true });
  writeFileSync(join(folder, "model.onnx"), modelBytes(node, inputs.map(nameOf), outputs.map(nameOf)));
  for (const [i, tensor] of inputs.filter((one) => one !== undefined).entries())
    writeFileSync(join(set, `input_${i}.pb`), tensorBytes(tensor));
  for (const [i, tensor] of outputs.filter((one) => one !== undefined).entries())
    writeFileSync(join(set, `output_${i}.pb`), tensorBytes(tensor));
  return folder;
}

const nameOf = (tensor: MadeTensor | undefined): string => tensor?.name ?? "";

export function modelBytes(node: MadeNode, inputs: readonly string[], outputs: readonly string[], copies = 1): Uint8Array {
  const attributes = Object.entries(node.attributes ?? {}).map(([name, value]) =>
    message(
      5,
      text(1, name),
      ...(typeof value === "string"
        ? [text(4, value), number(20, 3)]
        : Number.isInteger(value) && !floatAttributes.includes(name)
          ? [number(3, value), number(20, 2)]
          : [float(2, value), number(20, 1)]),
    ),
  );
  const body = [
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(4, node.operator),
    ...attributes,
    text(7, node.domain ?? ""),
  ];
  const values = (field: number, names: readonly string[]): Uint8Array[] =>
    names.filter((name) => name !== "").map((name) => message(field, text(1, name)));
  const graph = message(
    7,
    ...Array.from({ length: copies }, () => message(1, ...body)),
    text(2, "graph"),
    ...values(11, inputs),
    ...values(12, outputs),
  );
  return joined([number(1, 10), text(2, "made by a test"), graph, message(8, text(1, ""), number(2, 24))]);
}

/** A TensorProto with raw data, or with a list of numbers as older writers have it. */
export function tensorBytes({ name, type, shape, values }: MadeTensor, listed = false): Uint8Array {
  const head = [...shape.map((size) => number(1, size)), number(2, codes[type])];
  if (listed && type === "float32") return joined([...head, bytes(4, new Uint8Array(Float32Array.from(values).buffer)), text(8, name)]);
  if (listed && type === "int64") return joined([...head, bytes(7, joined(values.map((value) => varint(BigInt(value))))), text(8, name)]);
  if (listed && type === "float16")
    return joined([...head, bytes(5, joined([...toF16(values)].map((value) => varint(BigInt(value))))), text(8, name)]);
  const raw = {
    float32: () => Float32Array.from(values),
    float16: () => toF16(values),
    float64: () => Float64Array.from(values),
    bool: () => Uint8Array.from(values),
    int64: () => BigInt64Array.from(values, BigInt),
    uint64: () => BigUint64Array.from(values, BigInt),
  }[type]();
  return joined([...head, text(8, name), bytes(9, new Uint8Array(raw.buffer))]);
}

export function varint(value: bigint): Uint8Array {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, value);
  for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  return Uint8Array.from([...out, Number(rest)]);
}
export const number = (field: number, value: number | bigint): Uint8Array => joined([varint(BigInt(field << 3)), varint(BigInt(value))]);
export const bytes = (field: number, value: Uint8Array): Uint8Array =>
  joined([varint(BigInt((field << 3) | 2)), varint(BigInt(value.length)), value]);
const text = (field: number, value: string): Uint8Array => bytes(field, new TextEncoder().encode(value));
const float = (field: number, value: number): Uint8Array =>
  joined([varint(BigInt((field << 3) | 5)), new Uint8Array(Float32Array.of(value).buffer)]);
const message = (field: number, ...parts: Uint8Array[]): Uint8Array => bytes(field, joined(parts));

export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
