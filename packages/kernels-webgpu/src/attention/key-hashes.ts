/** attention/key-hashes: windows of tokens and of pages for attention/key-hashes.wgsl. */
import type { KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"tokens" | "kvHeads" | "bits" | "pages" | "pageSize", number>;

export function keyHashes({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, kvHeads, bits, pages, pageSize } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const tokenBytes = 4 * kvHeads * bits;
  const pageBytes = (kvHeads * pageSize * bits) / 8;
  const tokenWindow = windowRows(tokens, [tokenBytes], limit);
  if (tokenWindow === 0) return tooLong("keys", tokenBytes, limit);
  const pageWindow = windowRows(pages, [pageBytes], limit);
  if (pageWindow === 0) return tooLong("hashPages", pageBytes, limit);
  if (4 * tokens > limit) return tooLong("slots", 4 * tokens, limit);
  return {
    name: "rows",
    passes: {
      hash: {
        pieces: ["gen/params", "lib/float", "attention/key-hashes"],
        flags: [],
        entry: "hash_keys",
        constants: { workgroup_threads: facts.tunables.threads },
        bindings: { uniforms: 0, keys: 1, slots: 2, hashPages: 3, notes: 4 },
      },
    },
    faults: { scratch: "notes", ports: ["slots"] },
    arrange: () => ({
      scratch: { notes: faultBytes },
      launches: ({ tokens: now }) =>
        windowsOf(now as number, tokenWindow).flatMap((some) =>
          windowsOf(pages, pageWindow).map((held) => ({
            pass: "hash",
            workgroups: [Math.min(some.count, most), 1] as const,
            words: [held.first * pageSize, held.count * pageSize, some.first, some.count],
            ranges: { keys: rangeOf(some, tokenBytes), hashPages: rangeOf(held, pageBytes) },
          })),
        ),
    }),
  };
}
