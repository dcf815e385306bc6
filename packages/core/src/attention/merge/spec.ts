import { axis, defineOp, input, output } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * Joins attention states over disjoint sets of tokens into the state over all of them.
 *
 * A state is what attention returns: `out`, the softmax-weighted mean of the values, and `lse`, the logarithm of the
 * sum of exp(logit). out = sum_p exp(lse_p - lse) out_p; lse = ln sum_p exp(lse_p). A part with lse -Inf saw no
 * token: it is left out, whatever its `out` holds. Where every part is such, out is 0 and lse -Inf. A NaN in the
 * lse of a part makes the row NaN.
 */
export const merge = defineOp({
  id: "attention/merge",
  doc: "Joins attention states (out, lse) over disjoint sets of tokens into the state over all of them.",
  source: "online softmax (Milakov and Gimelshein, arXiv 1805.02867); the merge of states as in FlashInfer (arXiv 2501.01005, 2.2)",
  axes: {
    parts: axis("states that are joined", { min: 1, max: 65536, live: true }),
    rows: axis("rows: sequences times query heads"),
    valueDim: axis("components of a value", { min: 1, max: 65536 }),
  },
  ports: {
    partOut: input("f32", ["parts", "rows", "valueDim"], "the output of each part"),
    partLse: input("f32", ["parts", "rows"], "its log-sum-exp, natural logarithm"),
    out: output("f32", ["rows", "valueDim"], "the joined output"),
    lse: output("f32", ["rows"], "the joined log-sum-exp"),
  },
  constraints: [],
  exact: false,
  cost: ({ parts, rows, valueDim }) => ({
    flops: 2 * parts * rows * valueDim,
    bytes: 4 * rows * (parts + 1) * (valueDim + 1),
  }),
  // A weight: the difference, its exponential (4 roundings), the division; then a sum of `parts` products.
  rounding: ({ parts }) => ({ out: parts + 12, lse: parts + 12 }),
  reference,
});
