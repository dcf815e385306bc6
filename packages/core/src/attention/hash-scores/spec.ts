import { defineOp, input } from "../../op/define.js";
import { addressable, cacheAxes, cachePorts, granularity, groupedHeads } from "../decode/ports.js";
import { hashBits, hashPages, wholeWords } from "../key-hashes/spec.js";
import { granuleScores } from "../page-scores/spec.js";
import { wholeGranules } from "../page-stats/spec.js";
import { reference } from "./reference.js";

const { batch, queryHeads, kvHeads, pages, pageSize, maxPages } = cacheAxes;
const { pageTable, lengths } = cachePorts;

/**
 * Estimates from sign hashes of the keys (`attention/key-hashes`) how much each granule of a context matters to the query: what
 * `attention/select` takes. The angle between two vectors is about as large as the share of bits in which their hashes differ.
 *
 * A query head's hash is made as a key's: bit i is whether its component i is below 0. A token's distance is the number of
 * bits that differ, summed over the query heads of its KV head; a granule's score is minus the least distance of its tokens. So
 * 0 is the best, of a token that agrees with every head in every sign.
 *
 * A length out of range, or a page that does not exist, is a fault: all granules of that sequence, or those of that page,
 * score -Inf, the rest is computed, and the call throws.
 */
export const hashScores = defineOp({
  id: "attention/hash-scores",
  doc: "Scores the granules of a paged KV cache for a query by the Hamming distance of its hash to those of their keys.",
  source: "HATA (Gong et al., ACL 2025); the least distance of a block: unified-cache-management, gsa_on_device",
  axes: { batch, queryHeads, kvHeads, bits: hashBits, pages, pageSize, maxPages, granularity },
  ports: {
    queries: input("f32", ["batch", "queryHeads", "bits"], "the query of each head, or what a projection made of it"),
    hashPages: input("u32", hashPages, "the hash of each cached key"),
    pageTable,
    lengths,
    scores: granuleScores,
  },
  constraints: [groupedHeads, wholeWords, wholeGranules, addressable],
  exact: true,
  cost(axes) {
    const tokens = axes.batch * axes.maxPages * axes.pageSize;
    const words = axes.bits / 32;
    return {
      flops: 3 * tokens * axes.queryHeads * words,
      bytes:
        4 * tokens * axes.kvHeads * (words + 1 / axes.granularity) + 4 * axes.batch * (axes.queryHeads * axes.bits + axes.maxPages + 1),
    };
  },
  rounding: () => ({}),
  reference,
});
