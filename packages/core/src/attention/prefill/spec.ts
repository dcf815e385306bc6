import { byteLength, type DType } from "../../dtype.js";
import { axis, defineOp, dim, input, output } from "../../op/define.js";
import { addressable, cacheAxes, cachePorts, groupedHeads, logitPorts } from "../decode/ports.js";
import { reference } from "./reference.js";

/**
 * Causal grouped-query attention of many tokens of each sequence at once, over past and present in one paged KV cache
 * (laid out as for `attention/decode`); the keys and values of these tokens are in the cache already.
 *
 * The queries of sequence b are the rows from `queryOffsets[b]` up to `queryOffsets[b + 1]`, and its last tokens: query i
 * of n sees the first `lengths[b]` - n + i + 1 tokens (bottom-right alignment), of these the last `window` where that is
 * above 0. Each is what `attention/decode` without sinks gives over the tokens it sees. A sink joins by
 * `attention/merge`, as a part with out 0 and the sink as its lse. A query that sees nothing, and a row of no sequence,
 * has out 0 and lse -Inf.
 *
 * Offsets that do not ascend or pass the end, a length above maxPages * pageSize, or a page that does not exist, is a
 * fault: that sequence, or that page's tokens, are left out, the rest is computed, and the call throws.
 */
export const prefill = defineOp({
  id: "attention/prefill",
  doc: "Causal grouped-query attention of many tokens at once over past and present in a paged KV cache.",
  source:
    "Vaswani et al., arXiv 1706.03762, (1); tiles and online softmax: Dao et al., arXiv 2205.14135; pages: Kwon et al., arXiv 2309.06180",
  axes: {
    tokens: axis("queries of all sequences", { live: true }),
    ...cacheAxes,
  },
  ports: {
    queries: input("f32", ["tokens", "queryHeads", "headDim"], "the queries of each token's heads"),
    keyPages: cachePorts.keyPages,
    keyScale: cachePorts.keyScale,
    valuePages: cachePorts.valuePages,
    valueScale: cachePorts.valueScale,
    pageTable: cachePorts.pageTable,
    queryOffsets: input("i32", [dim("batch", { plus: 1 })], "where the queries of each sequence begin, and the end", {
      indexInto: dim("tokens", { plus: 1 }),
    }),
    lengths: input("i32", ["batch"], "tokens of each sequence, past and present", {
      indexInto: dim("maxPages", { times: "pageSize", plus: 1 }),
    }),
    ...logitPorts,
    out: output("f32", ["tokens", "queryHeads", "valueDim"], "the attended values"),
    lse: output("f32", ["tokens", "queryHeads"], "log-sum-exp of the logits, natural logarithm"),
  },
  constraints: [groupedHeads, addressable],
  exact: false,
  // As though each sequence were as long as it may be, and all its tokens were queries where there are enough.
  cost({ tokens, batch, queryHeads, kvHeads, headDim, valueDim, pageSize, maxPages }, { keyPages }) {
    const length = maxPages * pageSize;
    const width = headDim + valueDim;
    const each = Math.min(length, tokens / Math.max(1, batch));
    const scales = keyPages === "i8" ? 8 * batch * length * kvHeads : 0;
    return {
      flops: 2 * tokens * (length - each / 2) * queryHeads * width,
      bytes:
        byteLength(keyPages as DType, [batch * length, kvHeads, width]) +
        scales +
        4 * tokens * queryHeads * (width + 1) +
        4 * batch * (maxPages + 2),
    };
  },
  // As attention/decode; the sum over the tokens is joined tile by tile, of at least 16 tokens.
  rounding({ headDim, pageSize, maxPages }) {
    const tokens = maxPages * pageSize;
    const steps = headDim + tokens + Math.ceil(tokens / 16) + 32;
    return { out: steps, lse: steps };
  },
  reference,
});
