/** Expert weights as numbers and back. */
import { type DType, type HostArray, rowLength } from "../../dtype.js";
import { f16ToNumber, numberToF16, toF16 } from "../../half.js";
import { widenRow } from "../../op/elements.js";

/** Row `row` of a matrix of `target.length` columns. */
export function widenWeights(dtype: DType, data: HostArray, row: number, target: Float64Array): void {
  if (dtype !== "q8_0") {
    widenRow(dtype, data, row * target.length, target);
    return;
  }
  const bytes = data as Uint8Array;
  const from = row * rowLength(dtype, target.length);
  for (let i = 0; i < target.length; i++) {
    const block = from + 34 * Math.floor(i / 32);
    const scale = f16ToNumber((bytes[block] as number) | ((bytes[block + 1] as number) << 8));
    target[i] = (((bytes[block + 2 + (i % 32)] as number) << 24) >> 24) * scale;
  }
}

/** Rows of `columns` numbers in a weight dtype. q8_0: d = max|x| / 127 as f16, then round(x / d), of each 32; zeros behind a row's end. */
export function packWeights(dtype: DType, values: Float32Array, columns: number): HostArray {
  if (dtype === "f32") return values;
  if (dtype === "f16") return toF16(values);
  const rows = columns === 0 ? 0 : values.length / columns;
  const blocks = Math.ceil(columns / 32);
  const out = new Uint8Array(rows * blocks * 34);
  for (let row = 0; row < rows; row++)
    for (let block = 0; block < blocks; block++) {
      const part = values.subarray(row * columns + 32 * block, row * columns + Math.min(columns, 32 * block + 32));
      const bits = numberToF16(part.reduce((a, x) => Math.max(a, Math.abs(x)), 0) / 127);
      const step = f16ToNumber(bits);
      const at = (row * blocks + block) * 34;
      out[at] = bits & 255;
      out[at + 1] = bits >> 8;
      part.forEach((x, i) => {
        out[at + 2 + i] = step > 0 ? Math.max(-127, Math.min(127, Math.round(x / step))) : 0;
      });
    }
  return out;
}
