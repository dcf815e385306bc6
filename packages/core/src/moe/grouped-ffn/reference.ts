import { type DType, type HostArray, rowLength } from "../../dtype.js";
import type { ReferenceCall } from "../../op/define.js";
import { widenRow } from "../../op/elements.js";

export interface FfnTensors {
  x: Float32Array;
  sorted: Int32Array;
  blockExpert: Int32Array;
  expertSlot: Int32Array;
  gate: HostArray;
  up: HostArray;
  down: HostArray;
  out: Float32Array;
}

export type FfnAxes = Record<"tokens" | "topK" | "experts" | "slots" | "dim" | "hidden" | "blockSize" | "capacity", number>;

/** out[i] = W_down (silu(W_gate x) * (W_up x)), with the weights of the slot of the expert of the block that i stands in. */
export function reference(call: ReferenceCall): void {
  const { tokens, topK, dim, hidden, slots } = call.axes as FfnAxes;
  const { out } = call.tensors as FfnTensors;
  out.fill(0, 0, tokens * topK * dim);
  const rowsOf: number[][] = Array.from({ length: slots }, () => []);
  for (const { assignment, slot } of work(call)) rowsOf[slot]?.push(assignment);
  const buffers = { wide: new Float64Array(dim), narrow: new Float64Array(hidden) };
  rowsOf.forEach((rows, slot) => {
    for (const assignment of rows) expert(call, slot, assignment, buffers);
  });
}

/** What is to be computed; everything else is reported, port by port, or not there. */
function work({ axes, tensors, fail }: ReferenceCall): { assignment: number; slot: number }[] {
  const { tokens, topK, experts, slots, blockSize } = axes as FfnAxes;
  const { sorted, blockExpert, expertSlot } = tensors as FfnTensors;
  const checked = (port: string, values: Int32Array, below: number, once: boolean): number[] => {
    const seen = new Set<number>();
    return Array.from(values, (value, i) => {
      if (value === -1) return -1;
      if (value < 0 || value >= below || (once && seen.has(value))) {
        fail(port, i, value);
        return -1;
      }
      seen.add(value);
      return value;
    });
  };
  const assignments = checked("sorted", sorted, tokens * topK, true);
  const expertOf = checked("blockExpert", blockExpert, experts, false);
  const slotOf = checked("expertSlot", expertSlot, slots, false);
  return assignments.flatMap((assignment, row) => {
    const of = expertOf[Math.floor(row / blockSize)] as number;
    const slot = of < 0 ? -1 : (slotOf[of] as number);
    return assignment < 0 || slot < 0 ? [] : [{ assignment, slot }];
  });
}

function expert(
  { axes, variant, tensors, magnitude }: ReferenceCall,
  slot: number,
  assignment: number,
  { wide, narrow }: { wide: Float64Array; narrow: Float64Array },
): void {
  const { topK, dim, hidden } = axes as FfnAxes;
  const { x, gate, up, down, out } = tensors as FfnTensors;
  const dtype = variant.gate as DType;
  const token = Math.floor(assignment / topK);
  const row = x.subarray(token * dim, (token + 1) * dim);
  /** The product of the token with a row of weights, and the sum of its |terms|. */
  const product = (weights: HostArray, at: number): [number, number] => {
    widenRow(dtype, weights, at * rowLength(dtype, dim), wide);
    let [sum, size] = [0, 0];
    for (let i = 0; i < dim; i++) {
      const term = (row[i] as number) * (wide[i] as number);
      sum += term;
      size += Math.abs(term);
    }
    return [sum, size];
  };
  const inside = new Float64Array(hidden);
  // What roundings make of each: of the gate by silu's slope, of at most 1.1.
  const unsure = new Float64Array(hidden);
  for (let h = 0; h < hidden; h++) {
    const [g, gSize] = product(gate, slot * hidden + h);
    const [u, uSize] = product(up, slot * hidden + h);
    inside[h] = silu(g) * u;
    unsure[h] = 1.1 * gSize * Math.abs(u) + Math.abs(silu(g)) * uSize + 8 * Math.abs(inside[h] as number);
  }
  for (let i = 0; i < dim; i++) {
    widenRow(dtype, down, (slot * dim + i) * rowLength(dtype, hidden), narrow);
    let [sum, size] = [0, 0];
    for (let h = 0; h < hidden; h++) {
      sum += (inside[h] as number) * (narrow[h] as number);
      size += (Math.abs(inside[h] as number) + (unsure[h] as number)) * Math.abs(narrow[h] as number);
    }
    out[assignment * dim + i] = sum;
    if (magnitude?.out) magnitude.out[assignment * dim + i] = size;
  }
}

const silu = (g: number): number => (g <= -87 ? 0 : g / (1 + Math.exp(-g)));
