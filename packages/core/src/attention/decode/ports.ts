/** Axes, ports and constraints that a decode step and its siblings share. The ports come first, in this order, in each. */
import { byteLength, type DType } from "../../dtype.js";
import { type AnyVariant, axis, dim, input, like, optional, output, scalar, scaleOf } from "../../op/define.js";

export const cacheAxes = {
  batch: axis("sequences", { live: true }),
  queryHeads: axis("query heads", { min: 1, max: 65536 }),
  kvHeads: axis("key and value heads", { min: 1, max: 65536 }),
  headDim: axis("components of a query and a key", { min: 1, max: 4096 }),
  valueDim: axis("components of a value", { min: 1, max: 4096 }),
  pages: axis("pages of the cache", { min: 1 }),
  pageSize: axis("tokens of a page", { min: 1, max: 2 ** 24 }),
  maxPages: axis("pages of a sequence, at most", { min: 1 }),
};

export const cachePorts = {
  queries: input("f32", ["batch", "queryHeads", "headDim"], "the query of each head"),
  keyPages: input(["f32", "f16", "bf16", "i8"], ["pages", "kvHeads", "pageSize", "headDim"], "the keys"),
  keyScale: scaleOf("keyPages", ["i8"], input("f32", ["pages", "kvHeads", "pageSize"], "what each i8 key is multiplied by")),
  valuePages: like("keyPages", input(["f32", "f16", "bf16", "i8"], ["pages", "kvHeads", "pageSize", "valueDim"], "the values")),
  valueScale: scaleOf("keyPages", ["i8"], input("f32", ["pages", "kvHeads", "pageSize"], "what each i8 value is multiplied by")),
  pageTable: input("i32", ["batch", "maxPages"], "the pages of each sequence, in order", { indexInto: "pages" }),
  lengths: input("i32", ["batch"], "tokens of each sequence", { indexInto: dim("maxPages", { times: "pageSize", plus: 1 }) }),
  sinks: optional(input("f32", ["queryHeads"], "a learned logit without a value, per head")),
};

export const logitPorts = {
  scale: scalar("f32", "what q k is multiplied by", { default: ({ headDim }) => 1 / Math.sqrt(headDim as number) }),
  softCap: scalar("f32", "bound of the logits, 0 for none", { min: 0, default: 0 }),
  window: scalar("u32", "last tokens that are seen, 0 for all", { default: 0 }),
};

export const biasAxes = {
  maskHeads: axis("query heads that have a mask of their own: all, or 1 for all", { min: 1, max: 65536, default: 1 }),
};

/** What is added to logits by where a token stands, after the cap. */
export const biasPorts = {
  slopes: optional(input("f32", ["queryHeads"], "what a head's logits lose for each token between query and key")),
  mask: optional(
    input(
      ["bits", "f32"],
      ["batch", "maskHeads", dim("maxPages", { times: "pageSize" })],
      "per token: bits that are set for what is seen, or what is added to the logit",
    ),
  ),
};

export const statePorts = {
  out: output("f32", ["batch", "queryHeads", "valueDim"], "the attended values"),
  lse: output("f32", ["batch", "queryHeads"], "log-sum-exp of the logits, natural logarithm"),
};

type CacheSizes = { readonly [K in keyof typeof cacheAxes]: number } & { readonly maskHeads: number };

/** Tokens that a granule can have, so that the granules of a sequence have numbers. */
export const granularity = axis("tokens of a granule: consecutive ones that are listed, or weighed, together", { min: 1, max: 2 ** 16 });

export const groupedHeads = {
  says: "queryHeads a multiple of kvHeads",
  about: ["queryHeads", "kvHeads"],
  holds: ({ queryHeads, kvHeads }: Pick<CacheSizes, "queryHeads" | "kvHeads">) => queryHeads % kvHeads === 0,
};

export const maskedHeads = {
  says: "maskHeads 1 or queryHeads",
  about: ["maskHeads", "queryHeads"],
  holds: ({ maskHeads, queryHeads }: CacheSizes) => maskHeads === 1 || maskHeads === queryHeads,
};

export const addressable = {
  says: "maxPages * pageSize at most 2147483646",
  about: ["maxPages", "pageSize"],
  holds: ({ maxPages, pageSize }: Pick<CacheSizes, "maxPages" | "pageSize">) => maxPages * pageSize <= 2 ** 31 - 2,
};

/** Of a step in which each head sees so many `tokens` of each sequence, and its KV head's are read `reads` times. */
export function decodeCost(
  { batch, queryHeads, kvHeads, headDim, valueDim, maxPages, maskHeads }: CacheSizes,
  { keyPages, mask }: AnyVariant,
  tokens: number,
  reads = 1,
) {
  const seen = batch * tokens;
  const rows = seen * kvHeads * reads;
  const width = headDim + valueDim;
  const scales = keyPages === "i8" ? 8 * rows : 0;
  const masks = mask ? byteLength(mask as DType, [batch, maskHeads, tokens]) : 0;
  return {
    flops: 2 * seen * queryHeads * width,
    bytes: byteLength(keyPages as DType, [rows, width]) + scales + masks + 4 * batch * (queryHeads * (width + 1) + maxPages + 1),
  };
}

/**
 * A logit: a sum of headDim products, its scales, the cap, the slope's product, the mask. A weight: the exponential. Then a
 * sum over the tokens, in runs of at most 1024 that are joined.
 */
export const decodeSteps = (headDim: number, tokens: number): number => headDim + Math.min(tokens, 1024) + Math.ceil(tokens / 1024) + 32;
