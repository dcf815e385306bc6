import { axis, defineOp, dim, inout, input, like, scaleOf } from "../../op/define.js";
import { reference } from "./reference.js";

const dtypes = ["f32", "f16", "bf16", "i8"] as const;

/**
 * Writes the keys and values of new tokens into a paged KV cache, converting them to the cache's dtype.
 *
 * Token t goes to slot `slots[t]` = page * pageSize + place in the page; -1 skips it. f16 and bf16 are rounded to
 * nearest, ties to even. In i8 each (token, KV head) has a scale s = max|x| / 127, rounded to f32, and the integers
 * round(x / s), ties to even; a row with a NaN or an infinity has integers 0 and that as its scale, so that it decodes
 * to NaN. A slot that does not exist, and a slot that an earlier token of the call has, are faults: that token is left
 * out, the others are written, and the call throws.
 */
export const append = defineOp({
  id: "kv-cache/append",
  doc: "Writes new keys and values into the slots of a paged KV cache, quantised where the cache is.",
  source: "slots as in PagedAttention (Kwon et al., arXiv 2309.06180); one scale for each token and head",
  axes: {
    tokens: axis("new tokens", { live: true }),
    kvHeads: axis("key and value heads", { min: 1, max: 65536 }),
    headDim: axis("components of a key", { min: 1, max: 4096 }),
    valueDim: axis("components of a value", { min: 1, max: 4096 }),
    pages: axis("pages of the cache", { min: 1 }),
    pageSize: axis("tokens of a page", { min: 1, max: 2 ** 24 }),
  },
  ports: {
    keys: input("f32", ["tokens", "kvHeads", "headDim"], "the new keys"),
    values: input("f32", ["tokens", "kvHeads", "valueDim"], "the new values"),
    slots: input("i32", ["tokens"], "where each token goes, -1 for nowhere", { indexInto: dim("pages", { times: "pageSize" }), none: -1 }),
    keyPages: inout(dtypes, ["pages", "kvHeads", "pageSize", "headDim"], "the cached keys"),
    keyScale: scaleOf("keyPages", ["i8"], inout("f32", ["pages", "kvHeads", "pageSize"], "what each i8 key is multiplied by")),
    valuePages: like("keyPages", inout(dtypes, ["pages", "kvHeads", "pageSize", "valueDim"], "the cached values")),
    valueScale: scaleOf("keyPages", ["i8"], inout("f32", ["pages", "kvHeads", "pageSize"], "what each i8 value is multiplied by")),
  },
  constraints: [
    {
      says: "pages * pageSize at most 2147483646",
      about: ["pages", "pageSize"],
      holds: ({ pages, pageSize }) => pages * pageSize <= 2 ** 31 - 2,
    },
  ],
  exact: true,
  cost: ({ tokens, kvHeads, headDim, valueDim }, { keyPages }) => {
    const each = { f32: 4, f16: 2, bf16: 2, i8: 1 }[keyPages as "f32"] ?? 4;
    const elements = tokens * kvHeads * (headDim + valueDim);
    return { flops: keyPages === "i8" ? 3 * elements : 0, bytes: elements * (4 + each) };
  },
  rounding: () => ({}),
  reference,
});
