import { byteLength, type DType, dtypes } from "../../dtype.js";
import { axis, defineOp, input, optional, output } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * A linear layer: each token's vector times a stored matrix, out = x weight^T + bias + residual.
 *
 * weight [outDim, inDim] has a row for each component of the result, as checkpoints store it. Of q8_0 each row is whole
 * blocks of 32. The vectors are never quantised: q8_0 is widened as it is read. A NaN, or Inf times 0, makes the
 * components it takes part in NaN.
 */
export const linear = defineOp({
  id: "model/linear",
  doc: "A linear layer: each token's vector times a stored matrix of f32, f16, bf16 or q8_0, plus what passes it by.",
  source: "Vaswani et al., arXiv 1706.03762, (2); q8_0 as ggml defines it (block_q8_0)",
  axes: {
    tokens: axis("vectors that are multiplied", { live: true }),
    inDim: axis("components of a vector", { min: 1, max: 2 ** 24 }),
    outDim: axis("components of a result", { min: 1 }),
  },
  ports: {
    x: input("f32", ["tokens", "inDim"], "the vectors"),
    weight: input(["f32", "f16", "bf16", "q8_0"], ["outDim", "inDim"], "the matrix, a row for each component of the result"),
    bias: optional(input("f32", ["outDim"], "what is added to each token's result")),
    residual: optional(input("f32", ["tokens", "outDim"], "what passes the layer by, and is added to its results")),
    out: output("f32", ["tokens", "outDim"], "the results"),
  },
  constraints: [
    {
      says: "inDim of q8_0 weights in whole blocks of 32",
      about: ["inDim", "weight"],
      holds: ({ inDim }, { weight }) => inDim % dtypes[weight as DType].blockElements === 0,
    },
  ],
  exact: false,
  cost: ({ tokens, inDim, outDim }, { weight, residual }) => ({
    flops: 2 * tokens * inDim * outDim,
    bytes: byteLength(weight as DType, [outDim, inDim]) + 4 * tokens * (inDim + outDim * (residual ? 2 : 1)),
  }),
  // A sum of inDim products, a bias and a residual; of q8_0 each block's sum is multiplied by its scale.
  rounding: ({ inDim }) => ({ out: inDim + 5 }),
  reference,
});
