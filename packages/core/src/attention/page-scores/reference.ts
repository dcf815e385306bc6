import type { ReferenceCall } from "../../op/define.js";

export interface PageScoresTensors {
  queries: Float32Array;
  pageStats: Float32Array;
  pageTable: Int32Array;
  lengths: Int32Array;
  scores: Float32Array;
}

export type PageScoresAxes = Record<
  "batch" | "queryHeads" | "kvHeads" | "headDim" | "pages" | "pageSize" | "maxPages" | "granularity",
  number
>;

/** sum_i q_i mean_i + spread |q_i| deviation_i, or sum_i min(q_i, 0) least_i + max(q_i, 0) largest_i; summed over the group, or its largest. */
export function reference(call: ReferenceCall): void {
  const { batch, kvHeads, pages, pageSize, maxPages, granularity } = call.axes as PageScoresAxes;
  const { pageTable, lengths, scores } = call.tensors as PageScoresTensors;
  const granules = (maxPages * pageSize) / granularity;
  const perPage = pageSize / granularity;
  scores.fill(Number.NEGATIVE_INFINITY, 0, batch * kvHeads * granules);
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) continue;
    for (let g = 0; g * granularity < length; g++) {
      const entry = b * maxPages + Math.floor(g / perPage);
      const page = pageTable[entry] as number;
      if (page < 0 || page >= pages) {
        call.fail("pageTable", entry, page);
        continue;
      }
      for (let head = 0; head < kvHeads; head++)
        judge(call, b, head, (page * kvHeads + head) * perPage + (g % perPage), (b * kvHeads + head) * granules + g);
    }
  }
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) call.fail("lengths", b, length);
  }
}

/** The score of the granule in a row of the statistics, for the query heads of a KV head. */
function judge({ axes, variant, tensors, scalars, magnitude }: ReferenceCall, b: number, kvHead: number, row: number, at: number): void {
  const { queryHeads, kvHeads, headDim } = axes as PageScoresAxes;
  const { queries, pageStats, scores } = tensors as PageScoresTensors;
  const group = queryHeads / kvHeads;
  const sums: number[] = [];
  const sizes: number[] = [];
  for (let h = kvHead * group; h < (kvHead + 1) * group; h++) {
    let [sum, size] = [0, 0];
    for (let i = 0; i < headDim; i++) {
      const q = queries[(b * queryHeads + h) * headDim + i] as number;
      const [first, second] = [pageStats[row * 2 * headDim + i] as number, pageStats[(row * 2 + 1) * headDim + i] as number];
      const minmax = variant.statistics === "minmax";
      const one = (minmax ? Math.min(q, 0) : q) * first;
      const other = (minmax ? Math.max(q, 0) : (scalars.spread as number) * Math.abs(q)) * second;
      sum += one + other;
      size += Math.abs(one) + Math.abs(other);
    }
    sums.push(Number.isFinite(Math.fround(sum)) ? sum : Number.NaN);
    sizes.push(size);
  }
  const add = (values: readonly number[]): number => values.reduce((a, x) => a + x, 0);
  const score = Math.fround(variant.pool === "max" ? Math.max(...sums) : add(sums));
  scores[at] = Number.isFinite(score) ? score : Number.NaN;
  if (magnitude?.scores) magnitude.scores[at] = variant.pool === "max" ? Math.max(...sizes) : add(sizes);
}
