import { axis, defineOp, dim, input, output, scalar } from "../../op/define.js";
import { granularity } from "../decode/ports.js";
import { reference } from "./reference.js";

/**
 * Lists the granules of each sequence that score best, exactly: what `attention/decode-sparse` attends to.
 *
 * A sequence of `lengths[b]` tokens has n = ceil(lengths[b] / granularity) granules, of which min(`budget`, k, n) are
 * listed: first those that hold one of the last `recent` tokens (where they do not all fit, the latest), then those that
 * hold one of the first `sink` tokens (the first), then the best by score. Larger is better; equal scores go by lower
 * index, 0 and -0 are equal, and a NaN is below everything. Lists are ascending, with -1 behind their `counts` entries.
 *
 * With one list for several heads, a granule's score is the sum over the heads, in f32 and in their order.
 *
 * A length above granules * granularity is a fault: that sequence gets empty lists, the rest is done, the call throws.
 */
export const select = defineOp({
  id: "attention/select",
  doc: "Exact top-k of the granules of a context by score or attention mass, as ascending lists; first and last tokens are always listed.",
  source:
    "top-k with forced sink and recent tokens as in Xiao et al., arXiv 2309.17453, and Tang et al., arXiv 2406.10774; the order of ties is ours",
  axes: {
    batch: axis("sequences", { live: true }),
    heads: axis("heads that have scores", { min: 1, max: 65536 }),
    granules: axis("granules of a sequence, at most", { min: 1 }),
    granularity,
    lists: axis("lists of a sequence: 1 for all heads, or one for each", { min: 1, max: 65536 }),
    k: axis("entries of a list, at most", { min: 1 }),
  },
  ports: {
    scores: input("f32", ["batch", "heads", "granules"], "the score of each granule, such as its attention mass"),
    lengths: input("i32", ["batch"], "tokens of each sequence", { indexInto: dim("granules", { times: "granularity", plus: 1 }) }),
    budget: scalar("u32", "entries of a list in this run, 0 for k", { default: 0 }),
    sink: scalar("u32", "first tokens that are always listed", { default: 0 }),
    recent: scalar("u32", "last tokens that are always listed", { default: 0 }),
    selected: output("i32", ["batch", "lists", "k"], "granules, ascending, -1 in the tail", {
      indexInto: "granules",
      none: -1,
      counted: "counts",
    }),
    counts: output("u32", ["batch", "lists"], "how many granules each list holds"),
  },
  constraints: [
    { says: "lists 1 or heads", about: ["lists", "heads"], holds: ({ lists, heads }) => lists === 1 || lists === heads },
    { says: "k at most granules", about: ["k", "granules"], holds: ({ k, granules }) => k <= granules },
    {
      says: "granules * granularity at most 2147483646",
      about: ["granules", "granularity"],
      holds: ({ granules, granularity: tokens }) => granules * tokens <= 2 ** 31 - 2,
    },
  ],
  exact: true,
  // Each score is met once for each of four digits, and once more to be listed.
  cost: ({ batch, heads, granules, lists, k }) => ({
    flops: 5 * batch * heads * granules,
    bytes: 4 * batch * (heads * granules + lists * (k + 1) + 1),
  }),
  rounding: () => ({}),
  reference,
});
