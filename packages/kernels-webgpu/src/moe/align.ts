/** moe/align: the passes of moe/align.wgsl, or one of them that does all where there is little. */
import type { KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Launch, Pass, Program } from "../program.js";

type Axes = Record<"tokens" | "topK" | "experts" | "blockSize" | "capacity", number>;

/** Assignments of a chunk, in rounds of a workgroup's threads, at least; and chunks, at most: a thread sums them up. */
const chunkRounds = 8;
const mostChunks = 256;
/** Rows that one workgroup still fills alone. */
const wholeRows = 16384;

export function align({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, topK, experts, capacity } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads } = facts.tunables;
  for (const [name, size] of Object.entries({ ids: 4 * tokens * topK, sorted: 4 * capacity }))
    if (size > limit) return `${name} takes ${size} bytes, more than one binding of this device (${limit})`;
  // Fewer, longer chunks where the counts of that many would not fit one binding.
  const room = Math.floor((limit - faultBytes) / (4 * experts)) - 3;
  const chunksAtMost = Math.min(mostChunks, room);
  if (chunksAtMost < 1) return `counts of ${experts} experts take more than one binding of this device (${limit})`;
  const chunk = Math.max(chunkRounds * threads, Math.ceil((tokens * topK) / chunksAtMost));
  const chunksOf = (now: number): number => Math.max(1, Math.ceil((now * topK) / chunk));

  const pass = (entry: string, bindings: Pass["bindings"]): Pass => ({
    pieces: ["gen/params", "moe/align"],
    flags: [],
    entry,
    constants: { workgroup_threads: threads },
    bindings: { uniforms: 0, work: 1, ...bindings },
  });
  const spread = (items: number): [number, number] => {
    const groups = Math.max(1, Math.ceil(items / threads));
    const across = Math.min(groups, most);
    return [across, Math.ceil(groups / across)];
  };
  return {
    name: "counts",
    passes: {
      count: pass("count", { ids: 2 }),
      sumUp: pass("sum_up", {}),
      layOut: pass("lay_out", { total: 5 }),
      fill: pass("fill", { sorted: 3, blockExpert: 4 }),
      put: pass("put", { ids: 2, sorted: 3 }),
      whole: pass("whole", { ids: 2, sorted: 3, blockExpert: 4, total: 5 }),
    },
    faults: { scratch: "work", ports: ["ids"] },
    arrange: () => ({
      scratch: { work: faultBytes + 4 * (1 + experts * (2 + chunksOf(tokens))) },
      launches({ tokens: now }): readonly Launch[] {
        const chunks = chunksOf(now as number);
        const words = [chunk, chunks];
        if (chunks === 1 && capacity <= wholeRows) return [{ pass: "whole", workgroups: [1, 1], words }];
        return [
          { pass: "count", workgroups: [chunks, 1], words },
          { pass: "sumUp", workgroups: spread(experts), words },
          { pass: "layOut", workgroups: [1, 1], words },
          { pass: "fill", workgroups: spread(capacity), words },
          { pass: "put", workgroups: [chunks, 1], words },
        ];
      },
    }),
  };
}
