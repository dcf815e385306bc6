import { axis, defineOp, input, output } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * The gated unit of Llama's feed-forward layers: out = silu(gate) up, silu(x) = x / (1 + exp(-x)), component by component.
 *
 * Exponentials below the smallest normal f32 count as 0. A gate of -Inf gives NaN, one of +Inf that infinity times up.
 */
export const swiglu = defineOp({
  id: "model/swiglu",
  doc: "The gated unit of Llama's feed-forward layers: silu(gate) * up.",
  source: "Shazeer, arXiv 2002.05202, (6)",
  axes: {
    tokens: axis("vectors", { live: true }),
    dim: axis("components of a vector", { min: 1, max: 2 ** 24 }),
  },
  ports: {
    gate: input("f32", ["tokens", "dim"], "what goes through silu"),
    up: input("f32", ["tokens", "dim"], "what it is multiplied with"),
    out: output("f32", ["tokens", "dim"], "the products"),
  },
  constraints: [],
  exact: false,
  cost: ({ tokens, dim }) => ({ flops: 30 * tokens * dim, bytes: 12 * tokens * dim }),
  // Two exponentials (4 roundings each), a sum, a division, two products.
  rounding: () => ({ out: 14 }),
  reference,
});
