/** moe/route: a workgroup of moe/route.wgsl a token. */
import type { KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Program } from "../program.js";

type Axes = Record<"tokens" | "experts" | "topK" | "groups" | "keptGroups", number>;

export function route({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, experts, topK, groups, keptGroups } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most, tunables, features } = facts;
  const bytes = 4 * tokens * Math.max(experts, topK);
  if (bytes > limit) return `logits takes ${bytes} bytes, more than one binding of this device (${limit})`;
  // Few experts need no more threads than there are of them.
  const threads = Math.min(tunables.threads, Math.max(32, 2 ** Math.ceil(Math.log2(experts))));
  const held = 2 ** Math.ceil(Math.log2(Math.max(tunables.results, topK, groups > 1 ? keptGroups : 1)));
  const flags = [
    ...(variant.score === "softmax" ? ["softmax"] : []),
    ...(variant.renormalise ? ["renormalise"] : []),
    ...(variant.bias ? ["biased"] : []),
    ...(groups > 1 ? ["grouped"] : []),
    ...(features.has("subgroups") ? ["subgroups"] : []),
  ];
  return {
    name: "tokens",
    passes: {
      choose: {
        pieces: ["gen/params", "lib/float", "lib/top-k", "moe/route"],
        flags,
        entry: "choose",
        constants: { workgroup_threads: threads, top_capacity: held + 2 * threads },
        bindings: { uniforms: 0, logits: 1, ...(variant.bias ? { bias: 2 } : {}), ids: 3, weights: 4 },
      },
    },
    arrange: () => ({
      scratch: {},
      launches: ({ tokens: now }) => (now ? [{ pass: "choose", workgroups: [Math.min(now as number, most), 1], words: [] }] : []),
    }),
  };
}
