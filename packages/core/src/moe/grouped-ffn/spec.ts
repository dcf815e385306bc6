import { byteLength, type DType } from "../../dtype.js";
import { axis, defineOp, dim, input, like, output } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * The experts' feed-forward networks on the rows that `moe/align` has put in the order of the experts:
 * out[i] = W_down (silu(W_gate x) * (W_up x)) for each assignment i = token * topK + k, with silu(g) = g / (1 + exp(-g)),
 * 0 for g of at most -87.
 *
 * The experts' weights lie in `slots`; `expertSlot` says where each expert is, -1 where it is not loaded. What is
 * assigned to such an expert, or stands in no block, gets a row of zeros: with a cache smaller than a step needs, runs over
 * parts of the experts add up. Rows of q8_0 weights are whole blocks; what the last one holds beyond the row must be numbers.
 * Weights are widened to f32, sums are f32 in runs of 512.
 *
 * An assignment, expert or slot that does not exist, or an assignment that stands twice, is a fault: it is left out (the
 * first of two is done), the rest is computed, and the call throws.
 */
export const groupedFfn = defineOp({
  id: "moe/grouped-ffn",
  doc: "SwiGLU feed-forward networks of many experts, each on the rows assigned to it.",
  source: "SwiGLU: Shazeer, arXiv 2002.05202, (6); experts in blocks: fused_moe of vLLM",
  axes: {
    tokens: axis("tokens", { live: true, max: 2 ** 24 }),
    topK: axis("experts of a token", { min: 1, max: 64 }),
    experts: axis("experts", { min: 1, max: 4096 }),
    slots: axis("experts that are loaded, at most", { min: 1, max: 4096 }),
    dim: axis("components of a token", { min: 1, max: 65536 }),
    hidden: axis("components inside an expert", { min: 1, max: 65536 }),
    blockSize: axis("rows of a block", { min: 1, max: 1024 }),
    capacity: axis("rows of all blocks, at most", { max: 2 ** 31 - 1 }),
  },
  ports: {
    x: input("f32", ["tokens", "dim"], "the tokens"),
    sorted: input("i32", ["capacity"], "assignments in the order of the experts", {
      indexInto: dim("tokens", { times: "topK" }),
      none: -1,
    }),
    blockExpert: input("i32", [dim("capacity", { per: "blockSize" })], "the expert of each block", { indexInto: "experts", none: -1 }),
    expertSlot: input("i32", ["experts"], "where each expert's weights are", { indexInto: "slots", none: -1 }),
    gate: input(["f32", "f16", "q8_0"], ["slots", "hidden", "dim"], "weights of the gate"),
    up: like("gate", input(["f32", "f16", "q8_0"], ["slots", "hidden", "dim"], "weights of what it gates")),
    down: like("gate", input(["f32", "f16", "q8_0"], ["slots", "dim", "hidden"], "weights back to a token's components")),
    out: output("f32", ["tokens", "topK", "dim"], "what each expert of a token gives"),
  },
  constraints: [],
  exact: false,
  cost({ tokens, topK, experts, slots, dim: width, hidden }, { gate }) {
    const rows = tokens * topK;
    const used = Math.min(rows, experts, slots);
    return {
      flops: 6 * rows * width * hidden,
      bytes: used * (2 * byteLength(gate as DType, [hidden, width]) + byteLength(gate as DType, [width, hidden])) + 4 * rows * 2 * width,
    };
  },
  // A sum over the components, silu (8 with its exponential), a sum over the hidden ones.
  rounding: ({ dim: width, hidden }) => ({ out: width + hidden + 16 }),
  reference,
});
