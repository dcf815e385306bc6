import { type DType, type HostArray, rowLength } from "../../dtype.js";
import type { ReferenceCall } from "../../op/define.js";
import { widenRow } from "../../op/elements.js";

export interface LinearTensors {
  x: Float32Array;
  weight: HostArray;
  bias?: Float32Array;
  residual?: Float32Array;
  out: Float32Array;
}

export type LinearAxes = Record<"tokens" | "inDim" | "outDim", number>;

/** out_o = sum_i x_i weight_oi + bias_o + residual_o. */
export function reference({ axes, variant, tensors, magnitude }: ReferenceCall): void {
  const { tokens, inDim, outDim } = axes as LinearAxes;
  const { x, weight, bias, residual, out } = tensors as LinearTensors;
  const dtype = variant.weight as DType;
  const pitch = rowLength(dtype, inDim);
  const row = new Float64Array(inDim);
  for (let o = 0; o < outDim; o++) {
    widenRow(dtype, weight, o * pitch, row);
    for (let t = 0; t < tokens; t++) {
      const at = t * inDim;
      const besides = [bias?.[o] ?? 0, residual?.[t * outDim + o] ?? 0] as const;
      let sum = besides[0] + besides[1];
      for (let i = 0; i < inDim; i++) sum += (x[at + i] as number) * (row[i] as number);
      out[t * outDim + o] = sum;
      if (!magnitude?.out) continue;
      let size = Math.abs(besides[0]) + Math.abs(besides[1]);
      for (let i = 0; i < inDim; i++) size += Math.abs((x[at + i] as number) * (row[i] as number));
      magnitude.out[t * outDim + o] = size;
    }
  }
}
