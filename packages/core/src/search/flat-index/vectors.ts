/** Vectors as they come in: checked, and in the dtype that the index stores. */

import type { HostArray } from "../../dtype.js";
import { DTypeError, describe, HotsetError, ShapeError } from "../../errors.js";
import { toF16, toI8Rows } from "../../half.js";

/** Numbers that become f32: `[rows, dim]` row-major, or one vector. */
export type Vectors = Float32Array | Float64Array | Uint8Array | Int8Array | readonly number[];

/** How rows are stored; searches are exact over what is stored. */
export type RowDType = "f32" | "f16" | "i8";

/** Values as the index stores them. */
export interface Stored {
  readonly rows: HostArray;
  /** i8 only. */
  readonly scale?: Float32Array;
}

export const storedAs = (dtype: RowDType, values: Float32Array, dim: number): Stored => {
  if (dtype === "f32") return { rows: values };
  if (dtype === "f16") return { rows: toF16(values) };
  const { data, scale } = toI8Rows(values, dim);
  return { rows: data, scale };
};

/** Finite f32 numbers, whole rows of them; else ShapeError, DTypeError or HotsetError. */
export function checkedValues(where: string, vectors: Vectors, dim: number): { values: Float32Array; count: number } {
  const known = ArrayBuffer.isView(vectors)
    ? !(vectors instanceof DataView) && !/^Big/.test(vectors.constructor.name)
    : Array.isArray(vectors);
  if (!known) throw new DTypeError({ where, expected: "numbers: a typed array or an array", received: describe(vectors) });
  if (vectors.length % dim !== 0)
    throw new ShapeError({ where, expected: `a multiple of dim = ${dim} numbers`, received: `${vectors.length}` });
  const values = vectors instanceof Float32Array ? vectors : Float32Array.from(vectors as ArrayLike<number>);
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i])) continue;
    throw new HotsetError("argument", {
      where,
      expected: "finite numbers (in f32)",
      received: `${vectors[i]} in row ${Math.floor(i / dim)}, component ${i % dim}`,
    });
  }
  return { values, count: values.length / dim };
}

/** The same as rows of an index. */
export function checkedRows(where: string, vectors: Vectors, dim: number, dtype: RowDType): { stored: Stored; count: number } {
  const { values, count } = checkedValues(where, vectors, dim);
  const stored = storedAs(dtype, values, dim);
  const over = dtype === "f16" ? (stored.rows as Uint16Array).findIndex((bits) => (bits & 0x7c00) === 0x7c00) : -1;
  if (over >= 0)
    throw new HotsetError("argument", {
      where,
      expected: "numbers below 65520 in magnitude, for f16",
      received: `${vectors[over]} in row ${Math.floor(over / dim)}, component ${over % dim}`,
    });
  return { stored, count };
}
