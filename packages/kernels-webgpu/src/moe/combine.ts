/** moe/combine: a thread of moe/combine.wgsl a component. */
import type { KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Program } from "../program.js";

type Axes = Record<"tokens" | "topK" | "dim", number>;

export function combine({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, topK, dim } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const bytes = 4 * tokens * topK * dim;
  if (bytes > limit) return `rows takes ${bytes} bytes, more than one binding of this device (${limit})`;
  const { threads } = facts.tunables;
  return {
    name: "rows",
    passes: {
      combine: {
        pieces: ["gen/params", "lib/float", "moe/combine"],
        flags: [],
        entry: "combine",
        constants: { workgroup_threads: threads },
        bindings: { uniforms: 0, rows: 1, weights: 2, out: 3 },
      },
    },
    arrange: () => ({
      scratch: {},
      launches: ({ tokens: now }) =>
        now ? [{ pass: "combine", workgroups: [Math.ceil(dim / threads), Math.min(now as number, most)], words: [] }] : [],
    }),
  };
}
