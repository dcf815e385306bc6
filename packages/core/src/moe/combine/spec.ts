import { axis, defineOp, input, output } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * The weighted sum of what a token's experts gave: out[t] = sum_k weights[t][k] rows[t][k], in the order of k.
 *
 * A weight of 0 leaves its row out, whatever that holds. Sums are f32.
 */
export const combine = defineOp({
  id: "moe/combine",
  doc: "The weighted sum of what each token's experts gave.",
  source: "Shazeer et al., arXiv 1701.06538, (1)",
  axes: {
    tokens: axis("tokens", { live: true }),
    topK: axis("experts of a token", { min: 1, max: 64 }),
    dim: axis("components of a token", { min: 1, max: 65536 }),
  },
  ports: {
    rows: input("f32", ["tokens", "topK", "dim"], "what each expert of a token gave"),
    weights: input("f32", ["tokens", "topK"], "what it counts"),
    out: output("f32", ["tokens", "dim"], "the sums"),
  },
  constraints: [],
  exact: false,
  cost: ({ tokens, topK, dim }) => ({ flops: 2 * tokens * topK * dim, bytes: 4 * tokens * (topK * (dim + 1) + dim) }),
  rounding: ({ topK }) => ({ out: topK }),
  reference,
});
