/** Reading elements of any dtype as f64: what references are written with. */
import { type DType, dtypes, type HostArray } from "../dtype.js";
import { bf16ToNumber, f16ToNumber } from "../half.js";

/** Bit `i` of a bitmap. */
export const bitAt = (bits: Uint32Array, i: number): boolean => (((bits[i >>> 5] as number) >>> (i & 31)) & 1) === 1;

/** Copies `target.length` elements from `offset` on, as exact f64 values. Of q8_0, `offset` is the first byte of a block. */
export function widenRow(dtype: DType, data: HostArray, offset: number, target: Float64Array): void {
  if (dtype === "f16") for (let i = 0; i < target.length; i++) target[i] = f16ToNumber(data[offset + i] as number);
  else if (dtype === "bf16") for (let i = 0; i < target.length; i++) target[i] = bf16ToNumber(data[offset + i] as number);
  else if (dtype === "q8_0") widenQ8(data as Uint8Array, offset, target);
  else for (let i = 0; i < target.length; i++) target[i] = Number(data[offset + i]);
}

/** Blocks of an f16 scale and 32 signed bytes. */
function widenQ8(data: Uint8Array, offset: number, target: Float64Array): void {
  const { blockBytes, blockElements } = dtypes.q8_0;
  for (let i = 0; i < target.length; i++) {
    const block = offset + Math.floor(i / blockElements) * blockBytes;
    const scale = f16ToNumber((data[block] as number) | ((data[block + 1] as number) << 8));
    target[i] = scale * (((data[block + 2 + (i % blockElements)] as number) << 24) >> 24);
  }
}
