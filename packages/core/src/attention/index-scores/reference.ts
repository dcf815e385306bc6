import type { ReferenceCall } from "../../op/define.js";

export interface IndexScoresTensors {
  queries: Float32Array;
  weights: Float32Array;
  indexKeys: Int8Array;
  indexScale: Float32Array;
  pageTable: Int32Array;
  lengths: Int32Array;
  scores: Float32Array;
}

export type IndexScoresAxes = Record<"batch" | "heads" | "indexDim" | "pages" | "pageSize" | "maxPages" | "granularity", number>;

/** score_g = max_{t in g} sum_j w_j relu(q_j . k_t). */
export const reference = (call: ReferenceCall): void => score(call, (x) => Math.max(x, 0));

/** With another function in place of relu. */
export function score(call: ReferenceCall, activate: (x: number) => number): void {
  const { batch, pages, pageSize, maxPages, granularity } = call.axes as IndexScoresAxes;
  const { pageTable, lengths, scores } = call.tensors as IndexScoresTensors;
  const granules = (maxPages * pageSize) / granularity;
  scores.fill(Number.NEGATIVE_INFINITY, 0, batch * granules);
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) continue;
    for (let t = 0; t < length; t++) {
      const entry = b * maxPages + Math.floor(t / pageSize);
      const page = pageTable[entry] as number;
      if (page < 0 || page >= pages) {
        call.fail("pageTable", entry, page);
        continue;
      }
      const { sum, size } = scoreToken(call, b, page * pageSize + (t % pageSize), activate);
      const granule = b * granules + Math.floor(t / granularity);
      scores[granule] = Math.max(scores[granule] as number, Number.isFinite(Math.fround(sum)) ? sum : Number.NaN);
      const sizes = call.magnitude?.scores;
      if (sizes) sizes[granule] = Math.max(sizes[granule] as number, size);
    }
  }
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) call.fail("lengths", b, length);
  }
}

function scoreToken({ axes, tensors }: ReferenceCall, b: number, slot: number, activate: (x: number) => number) {
  const { heads, indexDim } = axes as IndexScoresAxes;
  const { queries, weights, indexKeys, indexScale } = tensors as IndexScoresTensors;
  const scale = indexScale[slot] as number;
  let [sum, size] = [0, 0];
  let finite = Number.isFinite(scale);
  for (let j = b * heads; j < (b + 1) * heads; j++) {
    const weight = weights[j] as number;
    let [dot, terms] = [0, 0];
    for (let i = 0; i < indexDim; i++) {
      const term = (queries[j * indexDim + i] as number) * (indexKeys[slot * indexDim + i] as number);
      finite &&= Number.isFinite(queries[j * indexDim + i]);
      dot += term;
      terms += Math.abs(term);
    }
    finite &&= Number.isFinite(weight);
    sum += weight * activate(scale * dot);
    size += Math.abs(weight * scale) * terms;
  }
  return { sum: finite ? sum : Number.NaN, size };
}
