import { axis, defineOp, dim, inout, input, like, scaleOf } from "../../op/define.js";
import { reference } from "./reference.js";

const dtypes = ["f32", "f16", "bf16", "i8"] as const;

/**
 * Moves the tokens that each KV head of each sequence keeps to the front of its pages, in place, so that the pages
 * behind them can be freed.
 *
 * `kept[b][h]` are the first `keptCount[b][h]` entries: token numbers, ascending, below `lengths[b]`. Token kept[i] of
 * that head becomes token i; as kept[i] is at least i, rows are moved down in order and none is overwritten before it
 * is read. What lies behind the kept rows is left as it is. Heads keep different numbers of tokens: a page is free once
 * it lies behind the longest of them. Pages must belong to one sequence each.
 *
 * A length, a count, a token or a page that does not exist, and a list that does not ascend, is a fault: that head is
 * left as it is, the others are moved, and the call throws.
 */
export const compact = defineOp({
  id: "kv-cache/compact",
  doc: "Moves the tokens that each KV head keeps to the front of its pages, in place.",
  source: "eviction inside a sequence that frees memory: ragged heads as in AdaKV (Feng et al., arXiv 2407.11550)",
  axes: {
    batch: axis("sequences", { live: true }),
    kvHeads: axis("key and value heads", { min: 1, max: 65536 }),
    headDim: axis("components of a key", { min: 1, max: 4096 }),
    valueDim: axis("components of a value", { min: 1, max: 4096 }),
    pages: axis("pages of the cache", { min: 1 }),
    pageSize: axis("tokens of a page", { min: 1, max: 2 ** 24 }),
    maxPages: axis("pages of a sequence, at most", { min: 1 }),
    maxKept: axis("tokens a head keeps, at most"),
  },
  ports: {
    pageTable: input("i32", ["batch", "maxPages"], "the pages of each sequence, in order", { indexInto: "pages" }),
    lengths: input("i32", ["batch"], "tokens of each sequence", { indexInto: dim("maxPages", { times: "pageSize", plus: 1 }) }),
    kept: input("i32", ["batch", "kvHeads", "maxKept"], "the tokens each head keeps, ascending", {
      indexInto: dim("maxPages", { times: "pageSize" }),
    }),
    keptCount: input("i32", ["batch", "kvHeads"], "how many each head keeps", { indexInto: dim("maxKept", { plus: 1 }) }),
    keyPages: inout(dtypes, ["pages", "kvHeads", "pageSize", "headDim"], "the cached keys"),
    keyScale: scaleOf("keyPages", ["i8"], inout("f32", ["pages", "kvHeads", "pageSize"], "what each i8 key is multiplied by")),
    valuePages: like("keyPages", inout(dtypes, ["pages", "kvHeads", "pageSize", "valueDim"], "the cached values")),
    valueScale: scaleOf("keyPages", ["i8"], inout("f32", ["pages", "kvHeads", "pageSize"], "what each i8 value is multiplied by")),
  },
  constraints: [
    {
      says: "maxPages * pageSize at most 2147483646",
      about: ["maxPages", "pageSize"],
      holds: ({ maxPages, pageSize }) => maxPages * pageSize <= 2 ** 31 - 2,
    },
  ],
  exact: true,
  cost: ({ batch, kvHeads, maxKept, headDim, valueDim }, { keyPages }) => {
    const each = { f32: 4, f16: 2, bf16: 2, i8: 1 }[keyPages as "f32"] ?? 4;
    return { flops: 0, bytes: 2 * batch * kvHeads * maxKept * (headDim + valueDim) * each };
  },
  rounding: () => ({}),
  reference,
});
