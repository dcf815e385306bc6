/** attention/merge: a workgroup a row of attention/merge.wgsl. */
import type { KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Program } from "../program.js";

type Axes = Record<"parts" | "rows" | "valueDim", number>;

export function merge({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { parts, rows, valueDim } = axes as Axes;
  const limit = facts.maxStorageBufferBindingSize;
  const bytes = 4 * parts * rows * valueDim;
  if (bytes > limit) return `partOut takes ${bytes} bytes, more than one binding of this device (${limit})`;
  const across = Math.min(Math.max(1, rows), facts.maxComputeWorkgroupsPerDimension);
  return {
    name: "rows",
    passes: {
      merge: {
        pieces: ["gen/params", "lib/float", "lib/lanes", "lib/join", "attention/merge"],
        flags: ["lanes_1"],
        entry: "merge",
        constants: { workgroup_threads: facts.tunables.threads },
        bindings: { uniforms: 0, partOut: 1, partLse: 2, out: 3, lse: 4 },
      },
    },
    arrange: () => ({
      scratch: {},
      launches: () => (rows ? [{ pass: "merge", workgroups: [across, Math.ceil(rows / across)], words: [across] }] : []),
    }),
  };
}
