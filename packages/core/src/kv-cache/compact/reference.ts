import type { ReferenceCall } from "../../op/define.js";

export interface CompactTensors {
  pageTable: Int32Array;
  lengths: Int32Array;
  kept: Int32Array;
  keptCount: Int32Array;
  keyPages: Float32Array | Uint16Array | Int8Array;
  keyScale?: Float32Array;
  valuePages: Float32Array | Uint16Array | Int8Array;
  valueScale?: Float32Array;
}
export type CompactAxes = Record<"batch" | "kvHeads" | "headDim" | "valueDim" | "pages" | "pageSize" | "maxPages" | "maxKept", number>;

/** Row i of a head becomes its row kept[i], for ascending i. */
export function reference({ axes, tensors, fail }: ReferenceCall): void {
  const { batch, kvHeads, headDim, valueDim, pages, pageSize, maxPages, maxKept } = axes as CompactAxes;
  const { pageTable, lengths, kept, keptCount, keyPages, keyScale, valuePages, valueScale } = tensors as CompactTensors;
  for (let b = 0; b < batch; b++)
    for (let head = 0; head < kvHeads; head++) {
      const list = b * kvHeads + head;
      if (!sound(b, list)) continue;
      for (let i = 0; i < (keptCount[list] as number); i++) {
        const [to, from] = [rowOf(b, head, i), rowOf(b, head, kept[list * maxKept + i] as number)];
        keyPages.copyWithin(to * headDim, from * headDim, (from + 1) * headDim);
        valuePages.copyWithin(to * valueDim, from * valueDim, (from + 1) * valueDim);
        keyScale?.copyWithin(to, from, from + 1);
        valueScale?.copyWithin(to, from, from + 1);
      }
    }

  function rowOf(b: number, head: number, token: number): number {
    const page = pageTable[b * maxPages + Math.floor(token / pageSize)] as number;
    return (page * kvHeads + head) * pageSize + (token % pageSize);
  }

  /** Whether all that a head names exists; it is looked at before anything is moved. */
  function sound(b: number, list: number): boolean {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) return bad("lengths", b, length);
    const count = keptCount[list] as number;
    if (count < 0 || count > maxKept) return bad("keptCount", list, count);
    let before = -1;
    for (let i = 0; i < count; i++) {
      const at = list * maxKept + i;
      const token = kept[at] as number;
      if (token <= before || token >= length) return bad("kept", at, token);
      before = token;
      for (const place of [i, token]) {
        const entry = b * maxPages + Math.floor(place / pageSize);
        const page = pageTable[entry] as number;
        if (page < 0 || page >= pages) return bad("pageTable", entry, page);
      }
    }
    return true;
  }

  function bad(port: string, index: number, value: number): false {
    fail(port, index, value);
    return false;
  }
}
