import { axis, defineOp, dim, input, output } from "../../op/define.js";
import { addressable, cacheAxes, cachePorts, granularity } from "../decode/ports.js";
import { wholeGranules } from "../page-stats/spec.js";
import { reference } from "./reference.js";

const { batch, pages, pageSize, maxPages } = cacheAxes;
const { pageTable, lengths } = cachePorts;

/**
 * The lightning indexer of DeepSeek Sparse Attention: how much each token of a context matters to the query, by small index
 * heads of their own that share one int8 key a token; the best token of a granule is its score, which `attention/select` takes.
 *
 * I_t = sum_j weights[j] relu(queries[j] . k_t), with k_t = scale_t * the int8 key. A granule's score is the largest I of its
 * tokens, with granularity 1 the token's own. Index keys lie as `kv-cache/append` writes them in i8 with one KV head; what
 * the model multiplies weights by (heads^-1/2, indexDim^-1/2, scales of quantised queries) is in `weights`.
 *
 * Where a query or weight of a sequence is not finite, or a token's scale, or a sum, scores are NaN, which select puts last. A
 * length out of range, or a page that does not exist, is a fault: all granules of that sequence, or those of that page,
 * score -Inf, the rest is computed, and the call throws.
 */
export const indexScores = defineOp({
  id: "attention/index-scores",
  doc: "Scores the granules of a context for a query by an indexer: int8 index keys, ReLU, and a weight for each index head.",
  source: "lightning indexer: DeepSeek-V3.2-Exp report, (1); the best token of a granule is ours",
  axes: {
    batch,
    heads: axis("index heads", { min: 1, max: 65536 }),
    indexDim: axis("components of an index key", { min: 1, max: 4096 }),
    pages,
    pageSize,
    maxPages,
    granularity,
  },
  ports: {
    queries: input("f32", ["batch", "heads", "indexDim"], "the query of each index head"),
    weights: input("f32", ["batch", "heads"], "what each head's score is multiplied by"),
    indexKeys: input("i8", ["pages", 1, "pageSize", "indexDim"], "the index keys"),
    indexScale: input("f32", ["pages", 1, "pageSize"], "what each index key is multiplied by"),
    pageTable,
    lengths,
    scores: output(
      "f32",
      ["batch", 1, dim("maxPages", { times: "pageSize", per: "granularity" })],
      "the score of each granule, larger for those that matter more; -Inf behind the length",
    ),
  },
  constraints: [wholeGranules, addressable],
  exact: false,
  cost(axes) {
    const tokens = axes.batch * axes.maxPages * axes.pageSize;
    return {
      flops: 2 * tokens * axes.heads * (axes.indexDim + 1),
      bytes: tokens * (axes.indexDim + 4 + 4 / axes.granularity) + 4 * axes.batch * (axes.heads * (axes.indexDim + 1) + axes.maxPages + 1),
    };
  },
  rounding: ({ heads, indexDim }) => ({ scores: indexDim + heads + 4 }),
  reference,
});
