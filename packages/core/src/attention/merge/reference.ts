import type { ReferenceCall } from "../../op/define.js";

export interface MergeTensors {
  partOut: Float32Array;
  partLse: Float32Array;
  out: Float32Array;
  lse: Float32Array;
}

/** out = sum_p exp(lse_p - lse) out_p;  lse = ln sum_p exp(lse_p). */
export function reference({ axes, tensors, magnitude }: ReferenceCall): void {
  const { parts, rows, valueDim } = axes as Record<"parts" | "rows" | "valueDim", number>;
  const { partOut, partLse, out, lse } = tensors as MergeTensors;
  const joined = new Float64Array(valueDim);
  const terms = new Float64Array(valueDim);
  for (let row = 0; row < rows; row++) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let p = 0; p < parts; p++) largest = Math.max(largest, partLse[p * rows + row] as number);
    joined.fill(0);
    terms.fill(0);
    let sum = 0;
    let size = 0;
    for (let p = 0; p < parts; p++) {
      const part = partLse[p * rows + row] as number;
      if (part === Number.NEGATIVE_INFINITY) continue;
      const weight = Math.exp(part - largest);
      // The weight carries the rounding of its exponent.
      const weightSize = weight * (1 + Math.abs(part) + Math.abs(largest));
      sum += weight;
      size += weightSize;
      for (let i = 0; i < valueDim; i++) {
        const value = partOut[(p * rows + row) * valueDim + i] as number;
        joined[i] = (joined[i] as number) + weight * value;
        terms[i] = (terms[i] as number) + weightSize * Math.abs(value);
      }
    }
    const share = size / sum;
    for (let i = 0; i < valueDim; i++) {
      out[row * valueDim + i] = sum === 0 ? 0 : (joined[i] as number) / sum;
      if (magnitude?.out) magnitude.out[row * valueDim + i] = sum === 0 ? 0 : ((terms[i] as number) * (1 + share)) / sum;
    }
    lse[row] = sum === 0 ? Number.NEGATIVE_INFINITY : largest + Math.log(sum);
    if (magnitude?.lse) magnitude.lse[row] = sum === 0 ? 0 : share + Math.abs(largest);
  }
}
