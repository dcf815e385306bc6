import type { HostArray } from "../../dtype.js";
import type { ReferenceCall } from "../../op/define.js";
import { reference as decode } from "../decode/reference.js";

export interface PrefillTensors {
  queries: Float32Array;
  keyPages: HostArray;
  keyScale?: Float32Array;
  valuePages: HostArray;
  valueScale?: Float32Array;
  pageTable: Int32Array;
  queryOffsets: Int32Array;
  lengths: Int32Array;
  out: Float32Array;
  lse: Float32Array;
}

export type PrefillAxes = Record<
  "tokens" | "batch" | "queryHeads" | "kvHeads" | "headDim" | "valueDim" | "pages" | "pageSize" | "maxPages",
  number
>;

/** Query i of the n of a sequence is a decode step over the tokens before and with it: length - n + i + 1 of them. */
export function reference(call: ReferenceCall): void {
  const { axes, tensors, magnitude, fail } = call;
  const { tokens, batch, queryHeads, headDim, valueDim, pageSize, maxPages } = axes as PrefillAxes;
  const { queries, pageTable, queryOffsets, lengths, out, lse } = tensors as PrefillTensors;
  out.fill(0, 0, tokens * queryHeads * valueDim);
  lse.fill(Number.NEGATIVE_INFINITY, 0, tokens * queryHeads);
  const faults: (() => void)[] = [];
  for (let b = 0; b < batch; b++) {
    const [first, end] = [queryOffsets[b] as number, queryOffsets[b + 1] as number];
    const length = lengths[b] as number;
    const inside = first >= 0 && first <= end && end <= tokens;
    if (first < 0 || first > tokens) faults.push(() => fail("queryOffsets", b, first));
    else if (!inside) faults.push(() => fail("queryOffsets", b + 1, end));
    if (!inside || length < 0 || length > maxPages * pageSize) continue;
    for (let t = first; t < end; t++) {
      const seen = Math.max(0, length - (end - 1 - t));
      const rows = [t * queryHeads, (t + 1) * queryHeads] as const;
      const part = <T extends Float32Array | Float64Array>(values: T, width: number): T =>
        values.subarray(rows[0] * width, rows[1] * width) as T;
      decode({
        ...call,
        axes: { ...axes, batch: 1 },
        tensors: {
          ...tensors,
          sinks: undefined,
          queries: part(queries, headDim),
          pageTable: pageTable.subarray(b * maxPages, (b + 1) * maxPages),
          lengths: Int32Array.of(seen),
          out: part(out, valueDim),
          lse: part(lse, 1),
        },
        magnitude: magnitude && {
          ...(magnitude.out && { out: part(magnitude.out, valueDim) }),
          ...(magnitude.lse && { lse: part(magnitude.lse, 1) }),
        },
        fail: (port, index, value) => fail(port, b * maxPages + index, value),
      });
    }
  }
  for (const report of faults) report();
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) fail("lengths", b, length);
  }
}
