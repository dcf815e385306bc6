import { axis, defineOp, input, output, scalar } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * Root-mean-square normalisation of each token's vector: out_i = weight_i x_i / sqrt(mean(x^2) + epsilon).
 *
 * Squares are summed in f32, so a vector may hold magnitudes up to 1e18 and at least one above 1e-18 (or an epsilon
 * that outweighs it). A NaN makes its token NaN; an infinity makes itself NaN and the rest of its token 0.
 */
export const rmsNorm = defineOp({
  id: "model/rms-norm",
  doc: "Root-mean-square normalisation of each token's vector, times a learned weight.",
  source: "Zhang and Sennrich, arXiv 1910.07467, (4)",
  axes: {
    tokens: axis("vectors that are normalised", { live: true }),
    dim: axis("components of a vector", { min: 1, max: 2 ** 24 }),
  },
  ports: {
    x: input("f32", ["tokens", "dim"], "the vectors"),
    weight: input("f32", ["dim"], "what each component is multiplied by"),
    epsilon: scalar("f32", "what is added to the mean square", { min: 0, default: 1e-5 }),
    out: output("f32", ["tokens", "dim"], "the normalised vectors"),
  },
  constraints: [],
  exact: false,
  cost: ({ tokens, dim }) => ({ flops: 4 * tokens * dim, bytes: 4 * dim * (2 * tokens + 1) }),
  // The sum of dim squares, under a square root: half of its roundings show.
  rounding: ({ dim }) => ({ out: Math.ceil(dim / 2) + 8 }),
  reference,
});
