import { axis, defineOp, dim, input, output } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * Puts a step's assignments (token, one of its experts) in the order of the experts, each expert's filled up to whole
 * blocks of `blockSize` rows, so that a matrix kernel meets one expert a block.
 *
 * Assignment i = token * topK + k. Within an expert they stay in rising order. `sorted` holds assignments, -1 where a block is filled up;
 * `blockExpert` the expert of each block, -1 behind the last; `total` the rows of all blocks. Ids of -1 take part in nothing.
 * A capacity of tokens * topK + min(experts, tokens * topK) * (blockSize - 1) always suffices, and is demanded.
 *
 * An expert that does not exist is a fault: its assignment is left out, the rest is done, and the call throws.
 */
export const align = defineOp({
  id: "moe/align",
  doc: "Sorts tokens' assignments by expert, each expert's filled up to whole blocks.",
  source: "moe_align_block_size of vLLM; as a stable counting sort, so that equal inputs give equal orders",
  axes: {
    tokens: axis("tokens", { live: true, max: 2 ** 24 }),
    topK: axis("experts of a token", { min: 1, max: 64 }),
    experts: axis("experts", { min: 1, max: 4096 }),
    blockSize: axis("rows of a block", { min: 1, max: 1024 }),
    capacity: axis("rows of all blocks, at most", { max: 2 ** 31 - 1 }),
  },
  ports: {
    ids: input("i32", ["tokens", "topK"], "the experts of each token", { indexInto: "experts", none: -1 }),
    sorted: output("i32", ["capacity"], "assignments in the order of the experts", {
      indexInto: dim("tokens", { times: "topK" }),
      none: -1,
      counted: "total",
    }),
    blockExpert: output("i32", [dim("capacity", { per: "blockSize" })], "the expert of each block", { indexInto: "experts", none: -1 }),
    total: output("i32", [dim("topK", { per: "topK" })], "rows of all blocks: one number"),
  },
  constraints: [
    {
      says: "capacity at least tokens * topK + min(experts, tokens * topK) * (blockSize - 1)",
      about: ["capacity", "tokens", "topK", "experts", "blockSize"],
      holds: ({ capacity, tokens, topK, experts, blockSize }) =>
        capacity >= tokens * topK + Math.min(experts, tokens * topK) * (blockSize - 1),
    },
  ],
  exact: true,
  cost: ({ tokens, topK, capacity }) => ({ flops: 0, bytes: 12 * tokens * topK + 4 * capacity }),
  rounding: () => ({}),
  reference,
});
