import { numberToBf16, numberToF16, toI8Rows } from "../../half.js";
import type { ReferenceCall } from "../../op/define.js";

export interface AppendTensors {
  keys: Float32Array;
  values: Float32Array;
  slots: Int32Array;
  keyPages: Float32Array | Uint16Array | Int8Array;
  keyScale?: Float32Array;
  valuePages: Float32Array | Uint16Array | Int8Array;
  valueScale?: Float32Array;
}

/** Row [token, head] of keys and values goes to [page, head, place]. */
export function reference({ axes, variant, tensors, fail }: ReferenceCall): void {
  const { tokens, kvHeads, headDim, valueDim, pages, pageSize } = axes as Record<string, number> as AppendAxes;
  const { keys, values, slots, keyPages, keyScale, valuePages, valueScale } = tensors as AppendTensors;
  const taken = new Set<number>();
  for (let t = 0; t < tokens; t++) {
    const slot = slots[t] as number;
    if (slot === -1) continue;
    if (slot < 0 || slot >= pages * pageSize || taken.has(slot)) {
      fail("slots", t, slot);
      continue;
    }
    taken.add(slot);
    for (let head = 0; head < kvHeads; head++) {
      const from = t * kvHeads + head;
      const to = (Math.floor(slot / pageSize) * kvHeads + head) * pageSize + (slot % pageSize);
      store(keys.subarray(from * headDim, (from + 1) * headDim), keyPages, keyScale, to, variant.keyPages === "bf16");
      store(values.subarray(from * valueDim, (from + 1) * valueDim), valuePages, valueScale, to, variant.keyPages === "bf16");
    }
  }
}

export type AppendAxes = Record<"tokens" | "kvHeads" | "headDim" | "valueDim" | "pages" | "pageSize", number>;

function store(row: Float32Array, rows: AppendTensors["keyPages"], scale: Float32Array | undefined, at: number, bf16: boolean): void {
  const from = at * row.length;
  if (rows instanceof Float32Array) rows.set(row, from);
  else if (rows instanceof Uint16Array) for (const [i, x] of row.entries()) rows[from + i] = bf16 ? numberToBf16(x) : numberToF16(x);
  else {
    const { data, scale: step } = toI8Rows(row, row.length);
    rows.set(Number.isFinite(step[0]) ? data : new Int8Array(row.length), from);
    // NaNs of arithmetic have any sign: the one that is stored has one.
    (scale as Float32Array)[at] = Number.isNaN(step[0]) ? Number.NaN : (step[0] as number);
  }
}
