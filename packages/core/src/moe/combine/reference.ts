import type { ReferenceCall } from "../../op/define.js";

export interface CombineTensors {
  rows: Float32Array;
  weights: Float32Array;
  out: Float32Array;
}

export type CombineAxes = Record<"tokens" | "topK" | "dim", number>;

/** out[t] = sum_k weights[t][k] rows[t][k]. */
export function reference({ axes, tensors, magnitude }: ReferenceCall): void {
  const { tokens, topK, dim } = axes as CombineAxes;
  const { rows, weights, out } = tensors as CombineTensors;
  for (let t = 0; t < tokens; t++)
    for (let i = 0; i < dim; i++) {
      let [sum, size] = [0, 0];
      for (let k = 0; k < topK; k++) {
        const weight = weights[t * topK + k] as number;
        if (weight === 0) continue;
        const term = weight * (rows[(t * topK + k) * dim + i] as number);
        sum += term;
        size += Math.abs(term);
      }
      out[t * dim + i] = sum;
      if (magnitude?.out) magnitude.out[t * dim + i] = size;
    }
}
