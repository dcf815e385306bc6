import { axis, choice, defineOp, input, optional, output, scalar } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * Rotary position embedding: turns pairs of components of each head by position * frequency_i, i below rotaryPairs.
 *
 * Pairs are (2i, 2i + 1) when `interleaved`, as Llama's own weights and llama2.c have them, or (i, i + rotaryPairs) when
 * `half`, as converted checkpoints have them. frequency_i = theta^(-i / rotaryPairs), or what is given. Components from
 * 2 * rotaryPairs on pass unchanged. Angles, sines and cosines are computed in f64, for
 * angles up to 2^31.
 */
export const rope = defineOp({
  id: "attention/rope",
  doc: "Rotary position embedding of queries or keys.",
  source: "Su et al., arXiv 2104.09864, (34)",
  axes: {
    tokens: axis("tokens", { live: true }),
    heads: axis("heads of each token", { min: 1, max: 65536 }),
    headDim: axis("components of a head", { min: 1, max: 4096 }),
    rotaryPairs: axis("pairs of components that are turned", { min: 1, max: 2048 }),
  },
  ports: {
    pairs: choice(["interleaved", "half"], "which components make a pair"),
    x: input("f32", ["tokens", "heads", "headDim"], "queries or keys"),
    positions: input("i32", ["tokens"], "the position of each token"),
    frequencies: optional(input("f32", ["rotaryPairs"], "radians a position, instead of theta")),
    theta: scalar("f32", "base of the frequencies", { min: 1e-3, default: 10000 }),
    out: output("f32", ["tokens", "heads", "headDim"], "the same, turned"),
  },
  constraints: [
    {
      says: "2 * rotaryPairs at most headDim",
      about: ["rotaryPairs", "headDim"],
      holds: ({ rotaryPairs, headDim }) => 2 * rotaryPairs <= headDim,
    },
  ],
  exact: false,
  cost: ({ tokens, heads, headDim, rotaryPairs }) => ({
    flops: tokens * rotaryPairs * (6 * heads + 60),
    bytes: 8 * tokens * heads * headDim + 4 * tokens,
  }),
  // Two products of rounded sines and cosines, and their sum.
  rounding: () => ({ out: 6 }),
  reference,
});
