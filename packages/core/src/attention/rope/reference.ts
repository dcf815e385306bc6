import type { ReferenceCall } from "../../op/define.js";

export interface RopeTensors {
  x: Float32Array;
  positions: Int32Array;
  frequencies?: Float32Array;
  out: Float32Array;
}

export type RopeAxes = Record<"tokens" | "heads" | "headDim" | "rotaryPairs", number>;

/** (out_a, out_b) = (x_a cos - x_b sin, x_a sin + x_b cos) of position * frequency_i, for each pair (a, b) of components. */
export function reference({ axes, variant, tensors, scalars, magnitude }: ReferenceCall): void {
  const { tokens, heads, headDim, rotaryPairs } = axes as RopeAxes;
  const { x, positions, frequencies, out } = tensors as RopeTensors;
  for (let t = 0; t < tokens; t++) {
    for (let h = 0; h < heads; h++) {
      const head = (t * heads + h) * headDim;
      for (let i = 2 * rotaryPairs; i < headDim; i++) out[head + i] = x[head + i] as number;
      for (let i = 0; i < rotaryPairs; i++) {
        const frequency = frequencies ? (frequencies[i] as number) : (scalars.theta as number) ** (-i / rotaryPairs);
        const angle = (positions[t] as number) * frequency;
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        const a = head + (variant.pairs === "half" ? i : 2 * i);
        const b = variant.pairs === "half" ? a + rotaryPairs : a + 1;
        const [first, second] = [x[a] as number, x[b] as number];
        out[a] = first * cos - second * sin;
        out[b] = first * sin + second * cos;
        if (!magnitude?.out) continue;
        // Roundings of the angle, in f64.
        const unsure = (Math.abs(first) + Math.abs(second)) * Math.abs(angle) * 2 ** -26;
        magnitude.out[a] = Math.abs(first * cos) + Math.abs(second * sin) + unsure;
        magnitude.out[b] = Math.abs(first * sin) + Math.abs(second * cos) + unsure;
      }
    }
  }
}
