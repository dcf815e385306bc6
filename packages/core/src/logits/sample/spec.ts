import { axis, defineOp, input, output, scalar } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * Draws a token from each row of logits.
 *
 * In this order: weights exp((logit - largest) / temperature), in f64 by one fixed series; the `topK` best by (logit, lower
 * id); of these the fewest best whose weights reach `topP` of their sum; of these all whose weight is at least `minP` (of
 * the largest, which is 1). Then the first token, by id, at which the running sum of the weights passes u times their
 * sum, with u of 53 bits from Philox4x32-10 of (seed, position): the same row, seed and position give the same token on
 * every host backend, alone or in a batch. A temperature of 0 is greedy: the largest logit, the lower id of equal ones.
 * A NaN or -Inf is never drawn; a row of nothing else gives -1. Beside +Inf nothing else is drawn.
 */
export const sample = defineOp({
  id: "logits/sample",
  doc: "Draws a token from each row of logits: temperature, top-k, top-p, min-p, seeded.",
  source:
    "nucleus sampling: Holtzman et al., arXiv 1904.09751; min-p: Nguyen et al., arXiv 2407.01082; Philox: Salmon et al., SC 2011; order of the filters as in Hugging Face transformers",
  axes: {
    rows: axis("sequences", { live: true }),
    vocab: axis("tokens to choose from", { min: 1, max: 2 ** 24 }),
  },
  ports: {
    logits: input("f32", ["rows", "vocab"], "the logits"),
    seeds: input("u32", ["rows"], "the seed of each sequence"),
    positions: input("u32", ["rows"], "the position of the token that is drawn"),
    temperature: scalar("f32", "what logits are divided by, 0 for greedy", { min: 0, max: 1e6, default: 0 }),
    topK: scalar("u32", "best tokens that are kept, 0 for all", { default: 0 }),
    topP: scalar("f32", "share of the weights that is kept, 1 for all", { min: 0, max: 1, default: 1 }),
    minP: scalar("f32", "least weight that is kept, of the largest", { min: 0, max: 1, default: 0 }),
    ids: output("i32", ["rows"], "the tokens that were drawn", { indexInto: "vocab", none: -1 }),
    kept: output("u32", ["rows"], "how many tokens each was drawn from"),
  },
  constraints: [],
  exact: true,
  cpuByDesign:
    "the draw is by f64, which WGSL lacks, to have the same bits everywhere; the logits of a token come back instead: 128 KB of 32,000 of them are 5 us at 25 GB/s, beside a wait that is needed for the token anyway",
  cost: ({ rows, vocab }) => ({ flops: 40 * rows * vocab, bytes: 4 * rows * (vocab + 4) }),
  rounding: () => ({}),
  reference,
});
