import { byteLength, type DType, dtypes } from "../../dtype.js";
import { axis, defineOp, input, output } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * The rows of a table that tokens name, widened to f32: out_t = table[ids_t]. Exact: f16, bf16 and q8_0 widen without
 * rounding.
 *
 * An id outside the table is a fault: its row is 0, the others are filled, and the call throws.
 */
export const embedding = defineOp({
  id: "model/embedding",
  doc: "The rows of a table that tokens name, widened to f32.",
  source: "Vaswani et al., arXiv 1706.03762, 3.4; q8_0 as ggml defines it (block_q8_0)",
  axes: {
    tokens: axis("tokens", { live: true }),
    vocab: axis("rows of the table", { min: 1 }),
    dim: axis("components of a row", { min: 1, max: 2 ** 24 }),
  },
  ports: {
    ids: input("i32", ["tokens"], "which rows", { indexInto: "vocab" }),
    table: input(["f32", "f16", "bf16", "q8_0"], ["vocab", "dim"], "the table"),
    out: output("f32", ["tokens", "dim"], "the rows"),
  },
  constraints: [
    {
      says: "dim of a q8_0 table in whole blocks of 32",
      about: ["dim", "table"],
      holds: ({ dim }, { table }) => dim % dtypes[table as DType].blockElements === 0,
    },
  ],
  exact: true,
  cost: ({ tokens, dim }, { table }) => ({ flops: 0, bytes: byteLength(table as DType, [tokens, dim]) + 4 * tokens * (dim + 1) }),
  // For devices, which may flush what is below the smallest normal.
  rounding: () => ({ out: 1 }),
  reference,
});
