/** model/swiglu: a thread of model/swiglu.wgsl an element, in windows of tokens. */
import type { KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"tokens" | "dim", number>;

export function swiglu({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, dim } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads } = facts.tunables;
  const window = windowRows(tokens, [4 * dim], limit);
  if (window === 0) return tooLong("gate", 4 * dim, limit);
  return {
    name: "rows",
    passes: {
      multiply: {
        pieces: ["gen/params", "lib/float", "lib/silu", "model/swiglu"],
        flags: [],
        entry: "multiply",
        constants: { workgroup_threads: threads },
        bindings: { uniforms: 0, gate: 1, up: 2, out: 3 },
      },
    },
    arrange: () => ({
      scratch: {},
      launches: ({ tokens: now }) =>
        windowsOf(now as number, window).map((some) => {
          const groups = Math.ceil((some.count * dim) / threads);
          const across = Math.min(groups, most);
          const range = rangeOf(some, 4 * dim);
          return {
            pass: "multiply",
            workgroups: [across, Math.ceil(groups / across)],
            words: [some.count * dim],
            ranges: { gate: range, up: range, out: range },
          };
        }),
    }),
  };
}
