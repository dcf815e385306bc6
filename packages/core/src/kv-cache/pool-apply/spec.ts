import { axis, defineOp, dim, inout, input, output } from "../../op/define.js";
import { headerWords, reference } from "./reference.js";

/** Opcodes of `commands`. */
export const poolCommand = { allocate: 0, retain: 1, release: 2, discard: 3 } as const;

/**
 * A pool of KV-cache blocks with reference counts, kept in one flat buffer that the caller owns: applies a list
 * of commands and returns what each one gave.
 *
 * `commands[i] = [opcode, block]`: `allocate` takes the oldest free block (block is ignored) and returns it, or
 * -1 when none is free; `retain` adds a reference, taking the block out of the free queue if it had none;
 * `release` drops one, and a block without references joins the end of the free queue (its content may be
 * retained again until it is reused); `discard` is release to the front of the queue, for content without value.
 * retain, release and discard return the references left.
 *
 * A state of zeros is an empty pool. A block number out of range, a release without a reference, an unknown
 * opcode or a damaged state is a fault: that command is skipped with result -1, and the call throws. A snapshot
 * is a copy of the bytes.
 */
export const poolApply = defineOp({
  id: "kv-cache/pool-apply",
  doc: "Applies allocate, retain, release and discard commands to a block pool kept in a flat buffer.",
  source: "free queue and reference counts as in vLLM's block pool",
  axes: {
    blocks: axis("blocks of the pool", { min: 1, max: 2 ** 28 }),
    count: axis("commands", { live: true }),
  },
  ports: {
    state: inout("u32", [dim("blocks", { times: 3, plus: headerWords })], "the pool: header, references, links of the free queue"),
    commands: input("u32", ["count", 2], "opcode and block of each command", { indexInto: "blocks" }),
    results: output("i32", ["count"], "what each command returned"),
  },
  constraints: [],
  exact: true,
  cpuByDesign: "commands depend on each other, about 10 ns each: a launch and a readback (over 10 us) cost more than a thousand of them",
  cost: ({ count }) => ({ flops: 0, bytes: 44 * count }),
  rounding: () => ({}),
  reference,
});
