import { byteLength, type DType } from "../../dtype.js";
import { choice, defineOp, dim, inout, input } from "../../op/define.js";
import { addressable, cacheAxes, cachePorts, granularity } from "../decode/ports.js";
import { reference } from "./reference.js";

const { batch, kvHeads, headDim, pages, pageSize, maxPages } = cacheAxes;
const { keyPages, keyScale, pageTable, lengths } = cachePorts;

/** Of a granule: as many as a page has, so that its statistics lie where its keys do, and stay when pages change hands. */
export const granuleStats = ["pages", "kvHeads", dim("pageSize", { per: "granularity" }), 2, "headDim"] as const;

export const statistics = choice(
  ["meanstd", "minmax"],
  "what is kept of each component: mean and standard deviation, or the smallest and the largest",
);

export const wholeGranules = {
  says: "pageSize a multiple of granularity",
  about: ["pageSize", "granularity"],
  holds: (axes: { pageSize: number; granularity: number }) => axes.pageSize % axes.granularity === 0,
};

/**
 * What `attention/page-scores` judges the granules of a paged cache by without their keys: two numbers of each component,
 * over the tokens that a granule holds.
 *
 * `meanstd`: the mean, and the standard deviation sqrt(sum (k - mean)^2 / n). `minmax`: the smallest and the largest, of which
 * Quest's bound is made. The statistics of granule g of a page lie at pageStats[page][kvHead][g]: pages that move from one
 * sequence to another take theirs with them. A last granule has those of the tokens that there are.
 *
 * Only what changed is made anew: granules that end at or before `from[b]` tokens are left as they are, those behind it up
 * to `lengths[b]` are computed from all their keys, so that appending token by token gives the bits of doing it at once.
 * `from[b]` is the least length the sequence has had since the last call; 0 makes all. Sequences that share a page must
 * have the same tokens of it. Both numbers are NaN where a key of the granule is not finite in that component.
 *
 * A length or `from` out of range, or a page that does not exist, is a fault: that sequence, or that granule, is left out,
 * the rest is computed, and the call throws.
 */
export const pageStats = defineOp({
  id: "attention/page-stats",
  doc: "Mean and deviation, or least and largest, of the keys of each granule of a paged KV cache, made anew where tokens were added.",
  source: "min and max: Quest (Tang et al., arXiv 2406.10774); mean and deviation at the same size: UNIQUE (arXiv 2605.27740)",
  axes: { batch, kvHeads, headDim, pages, pageSize, maxPages, granularity },
  ports: {
    statistics,
    keyPages,
    keyScale,
    pageTable,
    lengths,
    from: input("i32", ["batch"], "tokens of each sequence whose granules are left as they are, where these end by then", {
      indexInto: dim("maxPages", { times: "pageSize", plus: 1 }),
    }),
    pageStats: inout("f32", granuleStats, "mean and deviation, or least and largest, of each granule's keys"),
  },
  constraints: [wholeGranules, addressable],
  exact: false,
  // Of whole contexts: how little of them is new is known when it runs.
  cost({ batch: sequences, maxPages: held, pageSize: tokens, kvHeads: heads, headDim: width, granularity: each }, variant) {
    const rows = sequences * held * tokens * heads;
    const scales = variant.keyPages === "i8" ? 4 * rows : 0;
    return {
      flops: (variant.statistics === "minmax" ? 2 : 4) * rows * width,
      bytes: byteLength(variant.keyPages as DType, [rows, width]) + scales + (8 * rows * width) / each + 4 * sequences * (held + 2),
    };
  },
  // A sum over the tokens, its division; squares of differences, whose error the root takes back; the keys' scales.
  rounding: ({ granularity: tokens }) => ({ pageStats: tokens + 12 }),
  reference,
});
