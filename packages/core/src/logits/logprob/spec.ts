import { axis, defineOp, input, like, optional, output } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * What a row of logits says: with p = softmax(logits), the logarithm of the target's probability, the entropy, the k most
 * likely tokens with theirs, and the divergence KL(p || q) from q = softmax(against), where that is given. Natural
 * logarithms.
 *
 * A target of -1 is none: its `chosen` is 0. Best tokens are ordered by (logit, lower id); a NaN is none of them, and where
 * there are fewer than k the rest is -1 with -Inf. In entropy and KL a token with a logit 87 or more below the largest
 * counts as none; otherwise a q of 0 makes KL +Inf. A row with a NaN or +Inf, or of nothing but -Inf, is NaN.
 *
 * A target outside the vocabulary is a fault: its `chosen` is 0, the rest is computed, and the call throws.
 */
export const logprob = defineOp({
  id: "logits/logprob",
  doc: "Log-probability of a chosen token, entropy, most likely tokens and divergence from other logits, row by row.",
  source: "Kullback and Leibler, 1951, (2.4); Shannon, 1948, 6",
  axes: {
    tokens: axis("rows of logits", { live: true }),
    vocab: axis("tokens to choose from", { min: 1, max: 2 ** 24 }),
    k: axis("most likely tokens that are wanted", { max: 1024 }),
  },
  ports: {
    logits: input("f32", ["tokens", "vocab"], "the logits"),
    targets: input("i32", ["tokens"], "the token that was chosen", { indexInto: "vocab", none: -1 }),
    against: optional(input("f32", ["tokens", "vocab"], "other logits, to compare with")),
    chosen: output("f32", ["tokens"], "ln p of the target"),
    entropy: output("f32", ["tokens"], "-sum p ln p"),
    ids: output("i32", ["tokens", "k"], "the most likely tokens", { indexInto: "vocab", none: -1 }),
    best: output("f32", ["tokens", "k"], "ln p of these"),
    kl: like("against", output("f32", ["tokens"], "sum p (ln p - ln q)")),
  },
  constraints: [{ says: "k at most vocab", about: ["k", "vocab"], holds: ({ k, vocab }) => k <= vocab }],
  exact: false,
  cost: ({ tokens, vocab, k }, { against }) => ({
    flops: (against ? 50 : 25) * tokens * vocab,
    bytes: 4 * tokens * (vocab * (against ? 2 : 1) + 2 * k + 4),
  }),
  // Sums over blocks of 256 in f32, joined in f64; an exponential, a logarithm.
  rounding: ({ vocab }, { against }) => {
    const steps = Math.min(vocab, 256) + 16;
    return { chosen: steps, entropy: steps, best: steps, ...(against ? { kl: steps } : {}) };
  },
  reference,
});
