import type { ReferenceCall } from "../../op/define.js";

export interface SwigluTensors {
  gate: Float32Array;
  up: Float32Array;
  out: Float32Array;
}

/** out = silu(gate) up;  silu(x) = x / (1 + exp(-x)). */
export function reference({ axes, tensors, magnitude }: ReferenceCall): void {
  const { tokens, dim } = axes as Record<"tokens" | "dim", number>;
  const { gate, up, out } = tensors as SwigluTensors;
  for (let i = 0; i < tokens * dim; i++) {
    const [x, y] = [gate[i] as number, up[i] as number];
    const value = (x / (1 + Math.exp(-x))) * y;
    out[i] = value;
    // The exponential carries the rounding of its argument, and may be flushed to zero below the smallest normal.
    if (magnitude?.out) magnitude.out[i] = Math.abs(value) * (2 + Math.abs(x)) + Math.abs(x * y) * 2 ** -102;
  }
}
