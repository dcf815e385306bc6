import { byteLength, type DType } from "../../dtype.js";
import { axis, defineOp, dim, input, like, optional, output, scalar, scaleOf } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * One decode step of grouped-query attention over a paged KV cache: the newest token of each sequence attends to
 * the tokens before it.
 *
 * Token t of sequence b lies in page `pageTable[b][floor(t / pageSize)]` at `t % pageSize`; a contiguous cache
 * [batch, kvHeads, tokens, headDim] is one page per sequence. Query head h uses KV head floor(h * kvHeads / queryHeads).
 *
 * logit_t = softCap(scale * q k_t), softCap(x) = cap * tanh(x / cap) where `softCap` is above 0; with `window` above 0
 * only the last `window` tokens are seen. out = sum_t p_t v_t with p = softmax(logits); `sinks[h]` is one more logit,
 * without a value. lse = ln(sum_t exp(logit_t) + exp(sink)): with `attention/merge`, states over parts of a context
 * join exactly (give the sink to one part only). A sequence of length 0, or whose logits are all -Inf, has out 0 and
 * lse -Inf (the sink, where there is one). A NaN, or a logit of +Inf, makes that head's outputs NaN.
 *
 * A length above maxPages * pageSize, or a page that does not exist, is a fault: that sequence, or that page's tokens,
 * are left out, the rest is computed, and the call throws.
 */
export const decode = defineOp({
  id: "attention/decode",
  doc: "One decode step of grouped-query attention over a paged KV cache.",
  source: "Vaswani et al., arXiv 1706.03762, (1); grouped queries: Ainslie et al., arXiv 2305.13245; pages: Kwon et al., arXiv 2309.06180",
  axes: {
    batch: axis("sequences", { live: true }),
    queryHeads: axis("query heads", { min: 1, max: 65536 }),
    kvHeads: axis("key and value heads", { min: 1, max: 65536 }),
    headDim: axis("components of a query and a key", { min: 1, max: 4096 }),
    valueDim: axis("components of a value", { min: 1, max: 4096 }),
    pages: axis("pages of the cache", { min: 1 }),
    pageSize: axis("tokens of a page", { min: 1, max: 2 ** 24 }),
    maxPages: axis("pages of a sequence, at most", { min: 1 }),
  },
  ports: {
    queries: input("f32", ["batch", "queryHeads", "headDim"], "the query of each head"),
    keyPages: input(["f32", "f16", "bf16", "i8"], ["pages", "kvHeads", "pageSize", "headDim"], "the keys"),
    keyScale: scaleOf("keyPages", ["i8"], input("f32", ["pages", "kvHeads", "pageSize"], "what each i8 key is multiplied by")),
    valuePages: like("keyPages", input(["f32", "f16", "bf16", "i8"], ["pages", "kvHeads", "pageSize", "valueDim"], "the values")),
    valueScale: scaleOf("keyPages", ["i8"], input("f32", ["pages", "kvHeads", "pageSize"], "what each i8 value is multiplied by")),
    pageTable: input("i32", ["batch", "maxPages"], "the pages of each sequence, in order", { indexInto: "pages" }),
    lengths: input("i32", ["batch"], "tokens of each sequence", { indexInto: dim("maxPages", { times: "pageSize", plus: 1 }) }),
    sinks: optional(input("f32", ["queryHeads"], "a learned logit without a value, per head")),
    scale: scalar("f32", "what q k is multiplied by", { default: ({ headDim }) => 1 / Math.sqrt(headDim as number) }),
    softCap: scalar("f32", "bound of the logits, 0 for none", { min: 0, default: 0 }),
    window: scalar("u32", "last tokens that are seen, 0 for all", { default: 0 }),
    out: output("f32", ["batch", "queryHeads", "valueDim"], "the attended values"),
    lse: output("f32", ["batch", "queryHeads"], "log-sum-exp of the logits, natural logarithm"),
  },
  constraints: [
    {
      says: "queryHeads a multiple of kvHeads",
      about: ["queryHeads", "kvHeads"],
      holds: ({ queryHeads, kvHeads }) => queryHeads % kvHeads === 0,
    },
    {
      says: "maxPages * pageSize at most 2147483646",
      about: ["maxPages", "pageSize"],
      holds: ({ maxPages, pageSize }) => maxPages * pageSize <= 2 ** 31 - 2,
    },
  ],
  exact: false,
  cost({ batch, queryHeads, kvHeads, headDim, valueDim, pageSize, maxPages }, { keyPages }) {
    const tokens = batch * maxPages * pageSize;
    const width = headDim + valueDim;
    const scales = keyPages === "i8" ? 8 * tokens * kvHeads : 0;
    return {
      flops: 2 * tokens * queryHeads * width,
      bytes: byteLength(keyPages as DType, [tokens, kvHeads, width]) + scales + 4 * batch * (queryHeads * (width + 1) + maxPages + 1),
    };
  },
  // A logit: a sum of headDim products, its scales, the cap. A weight: the exponential. Then a sum over the tokens, in
  // runs of at most 1024 that are joined.
  rounding({ headDim, pageSize, maxPages }) {
    const tokens = maxPages * pageSize;
    const steps = headDim + Math.min(tokens, 1024) + Math.ceil(tokens / 1024) + 32;
    return { out: steps, lse: steps };
  },
  reference,
});
