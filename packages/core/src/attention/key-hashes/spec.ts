import { axis, defineOp, dim, inout, input } from "../../op/define.js";
import { cacheAxes } from "../decode/ports.js";
import { reference } from "./reference.js";

const { kvHeads, pages, pageSize } = cacheAxes;

export const hashBits = axis("components of a key, each a bit of its hash", { min: 32, max: 4096 });
export const hashPages = ["pages", "kvHeads", "pageSize", dim("bits", { per: 32 })] as const;
export const wholeWords = { says: "bits a multiple of 32", about: ["bits"], holds: (axes: { bits: number }) => axes.bits % 32 === 0 };

/**
 * Sign hashes of new keys, written beside a paged KV cache: bit i of a key's hash is set where its component i is below 0
 * (not for -0 and NaN), in bit i % 32 of word floor(i / 32). `attention/hash-scores` compares queries with them.
 *
 * Keys are hashed as they are, or after a projection to `bits` components (`model/linear`; learned as in HATA, or random): the
 * queries then go through the same one. Token t goes to slot `slots[t]` = page * pageSize + place in the page, as with
 * `kv-cache/append`; -1 skips it. Of tokens that share a slot one has it: append reports that.
 *
 * A slot that does not exist is a fault: that token is left out, the others are written, and the call throws.
 */
export const keyHashes = defineOp({
  id: "attention/key-hashes",
  doc: "Writes the signs of new keys, as bits, into the slots of paged hashes.",
  source: "HATA (Gong et al., ACL 2025), as in unified-cache-management; signs as hashes: Charikar, STOC 2002",
  axes: { tokens: axis("new tokens", { live: true }), kvHeads, bits: hashBits, pages, pageSize },
  ports: {
    keys: input("f32", ["tokens", "kvHeads", "bits"], "the new keys, or what a projection made of them"),
    slots: input("i32", ["tokens"], "where each token goes, -1 for nowhere", { indexInto: dim("pages", { times: "pageSize" }), none: -1 }),
    hashPages: inout("u32", hashPages, "the hash of each cached key"),
  },
  constraints: [
    wholeWords,
    {
      says: "pages * pageSize at most 2147483646",
      about: ["pages", "pageSize"],
      holds: (axes) => axes.pages * axes.pageSize <= 2 ** 31 - 2,
    },
  ],
  exact: true,
  cost: ({ tokens, kvHeads: heads, bits }) => ({ flops: 0, bytes: tokens * (heads * bits * (4 + 1 / 8) + 4) }),
  rounding: () => ({}),
  reference,
});
