import { type DType, type HostArray, rowLength } from "../../dtype.js";
import type { ReferenceCall } from "../../op/define.js";
import { widenRow } from "../../op/elements.js";

export interface EmbeddingTensors {
  ids: Int32Array;
  table: HostArray;
  out: Float32Array;
}

export type EmbeddingAxes = Record<"tokens" | "vocab" | "dim", number>;

/** out_t = table[ids_t]. */
export function reference({ axes, variant, tensors, fail }: ReferenceCall): void {
  const { tokens, vocab, dim } = axes as EmbeddingAxes;
  const { ids, table, out } = tensors as EmbeddingTensors;
  const dtype = variant.table as DType;
  const row = new Float64Array(dim);
  for (let t = 0; t < tokens; t++) {
    const id = ids[t] as number;
    if (id >= 0 && id < vocab) widenRow(dtype, table, id * rowLength(dtype, dim), row);
    else {
      row.fill(0);
      fail("ids", t, id);
    }
    out.set(row, t * dim);
  }
}
