import type { ReferenceCall } from "../../op/define.js";

export interface RmsNormTensors {
  x: Float32Array;
  weight: Float32Array;
  out: Float32Array;
}

/** out_i = weight_i x_i / sqrt(mean(x^2) + epsilon). */
export function reference({ axes, tensors, scalars, magnitude }: ReferenceCall): void {
  const { tokens, dim } = axes as Record<"tokens" | "dim", number>;
  const { x, weight, out } = tensors as RmsNormTensors;
  for (let t = 0; t < tokens; t++) {
    let squares = 0;
    for (let i = 0; i < dim; i++) squares += (x[t * dim + i] as number) ** 2;
    const scale = 1 / Math.sqrt(squares / dim + (scalars.epsilon as number));
    for (let i = 0; i < dim; i++) {
      const value = (weight[i] as number) * ((x[t * dim + i] as number) * scale);
      out[t * dim + i] = value;
      if (magnitude?.out) magnitude.out[t * dim + i] = Math.abs(value);
    }
  }
}
