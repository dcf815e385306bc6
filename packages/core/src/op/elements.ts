/** Reading elements of any dtype as f64: what references are written with. */
import type { DType, HostArray } from "../dtype.js";
import { bf16ToNumber, f16ToNumber } from "../half.js";

/** Bit `i` of a bitmap. */
export const bitAt = (bits: Uint32Array, i: number): boolean => (((bits[i >>> 5] as number) >>> (i & 31)) & 1) === 1;

/** Copies `target.length` elements from `offset` on, as exact f64 values. */
export function widenRow(dtype: DType, data: HostArray, offset: number, target: Float64Array): void {
  if (dtype === "f16") for (let i = 0; i < target.length; i++) target[i] = f16ToNumber(data[offset + i] as number);
  else if (dtype === "bf16") for (let i = 0; i < target.length; i++) target[i] = bf16ToNumber(data[offset + i] as number);
  else for (let i = 0; i < target.length; i++) target[i] = Number(data[offset + i]);
}
