/** model/rms-norm: a workgroup of model/rms-norm.wgsl a token, in windows of tokens. */
import type { KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"tokens" | "dim", number>;

export function rmsNorm({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, dim } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const window = windowRows(tokens, [4 * dim], limit);
  if (window === 0) return tooLong("x", 4 * dim, limit);
  return {
    name: "rows",
    passes: {
      normalise: {
        pieces: ["gen/params", "lib/float", "model/rms-norm"],
        flags: dim % 4 === 0 ? ["fours"] : [],
        entry: "normalise",
        constants: { workgroup_threads: facts.tunables.threads },
        bindings: { uniforms: 0, x: 1, weight: 2, out: 3 },
      },
    },
    arrange: () => ({
      scratch: {},
      launches: ({ tokens: now }) =>
        windowsOf(now as number, window).map((some) => ({
          pass: "normalise",
          workgroups: [Math.min(some.count, most), 1],
          words: [some.count],
          ranges: { x: rangeOf(some, 4 * dim), out: rangeOf(some, 4 * dim) },
        })),
    }),
  };
}
