/** A tensor as ONNX has it, and its numbers as Hotset takes them. */
import { f16ToNumber, toF16, UnsupportedError } from "@hotset/core";

/** By their number in TensorProto.DataType; arrays where Hotset reads the elements. */
export const elementTypes = {
  1: { name: "float32", bytes: 4, array: Float32Array },
  2: { name: "uint8", bytes: 1, array: Uint8Array },
  3: { name: "int8", bytes: 1, array: Int8Array },
  4: { name: "uint16", bytes: 2, array: Uint16Array },
  5: { name: "int16", bytes: 2, array: Int16Array },
  6: { name: "int32", bytes: 4, array: Int32Array },
  7: { name: "int64", bytes: 8, array: BigInt64Array },
  9: { name: "bool", bytes: 1, array: Uint8Array },
  10: { name: "float16", bytes: 2, array: Uint16Array },
  11: { name: "float64", bytes: 8, array: Float64Array },
  12: { name: "uint32", bytes: 4, array: Uint32Array },
  13: { name: "uint64", bytes: 8, array: BigUint64Array },
  16: { name: "bfloat16", bytes: 2, array: Uint16Array },
} as const;
export type ElementType = (typeof elementTypes)[keyof typeof elementTypes];
export type ElementName = ElementType["name"];
export type Elements =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array;

export interface OnnxTensor {
  readonly name: string;
  readonly type: ElementName;
  readonly shape: readonly number[];
  /** Row-major; float16 and bfloat16 as their bits, bool as 0 and 1. */
  readonly data: Elements;
  /** Of numbers that a text gives with a few decimals: how far the number meant may lie from each. */
  readonly printed?: number;
  /** Of expected values that were rounded by hand: how far results may lie from them besides. */
  readonly slack?: number;
}

export const elementsOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** The largest relative error of storing a number in this type. */
export const roundoff: Readonly<Partial<Record<ElementName, number>>> = {
  float32: 2 ** -24,
  float16: 2 ** -11,
  bfloat16: 2 ** -8,
  float64: 2 ** -53,
};

/** Its values, where it is of float32 or float16; `what` names it in the error. */
export function numbers({ type, data }: OnnxTensor, what: string): Float32Array {
  if (type === "float32") return data as Float32Array;
  if (type === "float16") return Float32Array.from(data as Uint16Array, f16ToNumber);
  throw notRun(`${what} of float32 or float16`, `${what} of ${type}`);
}

/** Whole numbers of any type that holds them. */
export function wholes({ type, data }: OnnxTensor, what: string): number[] {
  if (!type.includes("int")) throw notRun(`${what} of whole numbers`, `${what} of ${type}`);
  return Array.from(data as Int32Array, Number);
}

/** What becomes of f32 results where the output is of this type. */
export const storedAs = (type: ElementName, values: Float32Array): Float32Array =>
  type === "float16" ? Float32Array.from(toF16(values), f16ToNumber) : values;

/** The case is none that Hotset runs: `received` names the kind, for the summary. */
export const notRun = (expected: string, received: string): UnsupportedError =>
  new UnsupportedError({ where: "attention onnx", expected, received });

/** `[a, b, c, d]` with axes put in another order, such as tokens before heads. */
export function transposed<T extends Elements>(data: T, shape: readonly number[], order: readonly number[]): T {
  const strides = shape.map((_, i) => elementsOf(shape.slice(i + 1)));
  const sizes = order.map((axis) => shape[axis] as number);
  const out = data.slice() as T;
  const places = new Array<number>(order.length).fill(0);
  for (let at = 0; at < out.length; at++) {
    out[at] = data[order.reduce((sum, axis, i) => sum + (places[i] as number) * (strides[axis] as number), 0)] as never;
    for (let i = places.length - 1; i >= 0; i--) {
      places[i] = (places[i] as number) + 1;
      if ((places[i] as number) < (sizes[i] as number)) break;
      places[i] = 0;
    }
  }
  return out;
}
