/** attention/select: a workgroup of attention/select.wgsl a list. */
import type { KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Program } from "../program.js";

type Axes = Record<"batch" | "heads" | "granules" | "lists" | "k", number>;

export function select({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { batch, heads, granules, lists, k } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  for (const [name, size] of Object.entries({ scores: 4 * batch * heads * granules, selected: 4 * batch * lists * k }))
    if (size > limit) return `${name} takes ${size} bytes, more than one binding of this device (${limit})`;
  return {
    name: "radix",
    passes: {
      select: {
        pieces: ["gen/params", "lib/float", "attention/select"],
        flags: [],
        entry: "list_granules",
        constants: { workgroup_threads: facts.tunables.threads },
        bindings: { uniforms: 0, scores: 1, lengths: 2, selected: 3, counts: 4, notes: 5 },
      },
    },
    faults: { scratch: "notes", ports: ["lengths"] },
    arrange: () => ({
      scratch: { notes: faultBytes },
      launches(actual) {
        const rows = (actual.batch as number) * lists;
        return rows ? [{ pass: "select", workgroups: [Math.min(rows, most), 1], words: [] }] : [];
      },
    }),
  };
}
