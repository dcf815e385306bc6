/** attention/merge: a workgroup of attention/merge.wgsl a row and tile of columns. */
import type { KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Program } from "../program.js";

type Axes = Record<"parts" | "rows" | "valueDim", number>;

/** Columns of a workgroup that joins states; the other threads share the states of a column. */
export const joinColumns = (threads: number): number => Math.min(32, threads / 2);

export function merge({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { parts, rows, valueDim } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const bytes = 4 * parts * rows * valueDim;
  if (bytes > limit) return `partOut takes ${bytes} bytes, more than one binding of this device (${limit})`;
  const { threads } = facts.tunables;
  const columns = joinColumns(threads);
  return {
    name: "rows",
    passes: {
      merge: {
        pieces: ["gen/params", "lib/float", "lib/lanes", "lib/join", "attention/merge"],
        flags: ["lanes_1"],
        entry: "merge",
        constants: { workgroup_threads: threads, join_columns: columns },
        bindings: { uniforms: 0, partOut: 1, partLse: 2, out: 3, lse: 4 },
      },
    },
    arrange: () => ({
      scratch: {},
      launches: () => (rows ? [{ pass: "merge", workgroups: [Math.ceil(valueDim / columns), Math.min(rows, most)], words: [] }] : []),
    }),
  };
}
