import type { DType, HostArray } from "../../dtype.js";
import type { ReferenceCall } from "../../op/define.js";
import { widenRow } from "../../op/elements.js";

export interface PageStatsTensors {
  keyPages: HostArray;
  keyScale?: Float32Array;
  pageTable: Int32Array;
  lengths: Int32Array;
  from: Int32Array;
  pageStats: Float32Array;
}

export type PageStatsAxes = Record<"batch" | "kvHeads" | "headDim" | "pages" | "pageSize" | "maxPages" | "granularity", number>;

/** mean_i = sum_t k_ti / n, deviation_i = sqrt(sum_t (k_ti - mean_i)^2 / n);  or min_t k_ti, max_t k_ti. */
export function reference(call: ReferenceCall): void {
  const { batch, kvHeads, pages, pageSize, maxPages, granularity } = call.axes as PageStatsAxes;
  const { pageTable, lengths, from } = call.tensors as PageStatsTensors;
  const most = maxPages * pageSize;
  const sound = (length: number): boolean => length >= 0 && length <= most;
  for (let b = 0; b < batch; b++) {
    const [length, kept] = [lengths[b] as number, from[b] as number];
    if (!sound(length) || !sound(kept)) continue;
    for (let g = Math.floor(kept / granularity); g * granularity < length; g++) {
      const entry = b * maxPages + Math.floor((g * granularity) / pageSize);
      const page = pageTable[entry] as number;
      if (page < 0 || page >= pages) {
        call.fail("pageTable", entry, page);
        continue;
      }
      const inPage = (g * granularity) % pageSize;
      for (let head = 0; head < kvHeads; head++)
        describe(call, (page * kvHeads + head) * pageSize + inPage, Math.min(granularity, length - g * granularity));
    }
  }
  for (let b = 0; b < batch; b++) if (!sound(lengths[b] as number)) call.fail("lengths", b, lengths[b] as number);
  for (let b = 0; b < batch; b++) if (!sound(from[b] as number)) call.fail("from", b, from[b] as number);
}

/** The statistics of `count` tokens from a slot on. */
function describe({ axes, variant, tensors, magnitude }: ReferenceCall, slot: number, count: number): void {
  const { headDim, granularity } = axes as PageStatsAxes;
  const { keyPages, keyScale, pageStats } = tensors as PageStatsTensors;
  const keys = Array.from({ length: count }, (_, t) => {
    const key = new Float64Array(headDim);
    widenRow(variant.keyPages as DType, keyPages, (slot + t) * headDim, key);
    return keyScale ? key.map((x) => x * (keyScale[slot + t] as number)) : key;
  });
  const at = (slot / granularity) * 2 * headDim;
  for (let i = 0; i < headDim; i++) {
    const values = keys.map((key) => key[i] as number);
    const mean = values.reduce((a, x) => a + x, 0) / count;
    const deviation = Math.sqrt(values.reduce((a, x) => a + (x - mean) ** 2, 0) / count);
    const both = variant.statistics === "minmax" ? [Math.min(...values), Math.max(...values)] : [mean, deviation];
    const finite = values.every(Number.isFinite);
    for (const [which, value] of both.entries()) {
      pageStats[at + which * headDim + i] = finite ? value : Number.NaN;
      if (magnitude?.pageStats)
        magnitude.pageStats[at + which * headDim + i] = values.reduce((a, x) => a + Math.abs(x), 0) / count + deviation;
    }
  }
}
