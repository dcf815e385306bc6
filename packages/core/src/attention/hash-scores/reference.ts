import type { ReferenceCall } from "../../op/define.js";
import { hashOf } from "../key-hashes/reference.js";

export interface HashScoresTensors {
  queries: Float32Array;
  hashPages: Uint32Array;
  pageTable: Int32Array;
  lengths: Int32Array;
  scores: Float32Array;
}

export type HashScoresAxes = Record<
  "batch" | "queryHeads" | "kvHeads" | "bits" | "pages" | "pageSize" | "maxPages" | "granularity",
  number
>;

/** score_g = -min_{t in g} sum_h |hash(q_h) xor hash_t|. */
export function reference({ axes, tensors, fail }: ReferenceCall): void {
  const { batch, queryHeads, kvHeads, bits, pages, pageSize, maxPages, granularity } = axes as HashScoresAxes;
  const { queries, hashPages, pageTable, lengths, scores } = tensors as HashScoresTensors;
  const granules = (maxPages * pageSize) / granularity;
  const group = queryHeads / kvHeads;
  const words = bits / 32;
  scores.fill(Number.NEGATIVE_INFINITY, 0, batch * kvHeads * granules);
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) continue;
    const hashes = Array.from({ length: queryHeads }, (_, h) => {
      const at = (b * queryHeads + h) * bits;
      return hashOf(queries.subarray(at, at + bits));
    });
    for (let t = 0; t < length; t++) {
      const entry = b * maxPages + Math.floor(t / pageSize);
      const page = pageTable[entry] as number;
      if (page < 0 || page >= pages) {
        fail("pageTable", entry, page);
        continue;
      }
      for (let head = 0; head < kvHeads; head++) {
        const at = ((page * kvHeads + head) * pageSize + (t % pageSize)) * words;
        let distance = 0;
        for (const hash of hashes.slice(head * group, (head + 1) * group))
          for (let w = 0; w < words; w++) distance += ones((hash[w] as number) ^ (hashPages[at + w] as number));
        const granule = (b * kvHeads + head) * granules + Math.floor(t / granularity);
        scores[granule] = Math.max(scores[granule] as number, 0 - distance);
      }
    }
  }
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) fail("lengths", b, length);
  }
}

/** How many bits are set. */
function ones(bits: number): number {
  let count = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) count++;
  return count;
}
