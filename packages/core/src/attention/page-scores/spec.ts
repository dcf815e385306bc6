import { choice, defineOp, dim, input, output, scalar } from "../../op/define.js";
import { addressable, cacheAxes, cachePorts, granularity, groupedHeads } from "../decode/ports.js";
import { granuleStats, statistics, wholeGranules } from "../page-stats/spec.js";
import { reference } from "./reference.js";

const { batch, queryHeads, kvHeads, headDim, pages, pageSize, maxPages } = cacheAxes;
const { queries, pageTable, lengths } = cachePorts;

export const poolOf = choice(["sum", "max"], "what the query heads of a KV head make of their scores together");

export const granuleScores = output(
  "f32",
  ["batch", "kvHeads", dim("maxPages", { times: "pageSize", per: "granularity" })],
  "the score of each granule, larger for those that matter more; -Inf behind the length",
);

/**
 * Estimates from the statistics that `attention/page-stats` keeps how much each granule of a context matters to the query,
 * without reading its keys: what `attention/select` takes.
 *
 * A query head's score of a granule is, with the mean m and deviation d of its keys, sum_i q_i m_i + spread sum_i |q_i| d_i; with
 * the least n and largest x of `minmax`, sum_i min(q_i, 0) n_i + max(q_i, 0) x_i, which no dot product of a key in it exceeds.
 * The heads of a KV head are pooled by their sum, which costs no more than one head, or by their largest. Logits' scale
 * changes no order, and is left out.
 *
 * The bound of `minmax` looks at the best token a granule could have, and grows with its outliers; means look at what it
 * holds. `spread` is 0.5: of those tried on a small trained model, 0.25 and 0.5 kept the most attention mass (.887 of it by
 * sums, .802 by bounds, .902 by the masses themselves; docs/attention-policy.md); 0 scores by means alone.
 *
 * A score that is not finite is NaN, which select puts last. A length out of range, or a page that does not exist, is a
 * fault: all granules of that sequence, or those of that page, score -Inf, the rest is computed, and the call throws.
 */
export const pageScores = defineOp({
  id: "attention/page-scores",
  doc: "Scores the granules of a paged KV cache for a query by statistics of their keys, without reading the keys.",
  source: "bound by min and max: Quest (Tang et al., arXiv 2406.10774), 3.3; mean and deviation: UNIQUE (arXiv 2605.27740)",
  axes: { batch, queryHeads, kvHeads, headDim, pages, pageSize, maxPages, granularity },
  ports: {
    statistics,
    pool: poolOf,
    queries,
    pageStats: input("f32", granuleStats, "mean and deviation, or least and largest, of each granule's keys"),
    pageTable,
    lengths,
    spread: scalar("f32", "deviations that are added to the mean, for meanstd", { default: 0.5 }),
    scores: granuleScores,
  },
  constraints: [groupedHeads, wholeGranules, addressable],
  exact: false,
  cost(axes, { pool }) {
    const granules = axes.batch * Math.ceil((axes.maxPages * axes.pageSize) / axes.granularity);
    const heads = pool === "max" ? axes.queryHeads : axes.kvHeads;
    return {
      flops: 4 * granules * heads * axes.headDim,
      bytes: granules * axes.kvHeads * (8 * axes.headDim + 4) + 4 * axes.batch * (axes.queryHeads * axes.headDim + axes.maxPages + 1),
    };
  },
  // Two products a component; heads that are pooled, before or after.
  rounding: ({ headDim: width, queryHeads: heads, kvHeads: groups }) => ({ scores: 2 * width + heads / groups + 4 }),
  reference,
});
