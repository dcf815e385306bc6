/** attention/continual-single: the passes of attention/continual-single.wgsl. */
import type { KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Pass, Program } from "../program.js";

export type RingAxes = Record<"streams" | "heads" | "window" | "headDim", number>;

/** Why rings of so many bytes cannot be, if so. */
export const ringRefusal = (bytes: number, limit: number): string | undefined =>
  bytes > limit ? `a ring takes ${bytes} bytes, more than one binding of this device (${limit})` : undefined;

export function continualSingle({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { streams, heads, window, headDim } = axes as RingAxes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const refusal = ringRefusal(4 * streams * heads * window * headDim, limit);
  if (refusal) return refusal;
  const { threads } = facts.tunables;
  const pass = (entry: string, flags: readonly string[], bindings: Readonly<Record<string, number>>): Pass => ({
    pieces: ["gen/params", "lib/float", "attention/continual-rows", "attention/continual-single"],
    flags,
    entry,
    constants: { workgroup_threads: threads },
    bindings: { uniforms: 0, ...bindings },
  });
  return {
    name: "heads",
    passes: {
      insert: pass("insert", ["inserts"], { key: 1, value: 2, keyRing: 3, valueRing: 4, steps: 5, work: 6 }),
      count: pass("count", ["counts"], { steps: 1 }),
      attend: pass("attend", ["exact", "rows"], { query: 1, keyRing: 2, valueRing: 3, work: 4, out: 5, lse: 6 }),
    },
    faults: { scratch: "work", ports: ["steps"] },
    arrange: () => ({
      scratch: { work: faultBytes + 4 * Math.max(1, streams * heads) },
      launches({ streams: given }) {
        const now = given as number;
        if (now === 0) return [];
        const each = [Math.min(now * heads, most), 1] as const;
        return [
          { pass: "insert", workgroups: each, words: [] },
          { pass: "count", workgroups: [Math.min(Math.ceil(now / threads), most), 1], words: [] },
          { pass: "attend", workgroups: each, words: [] },
        ];
      },
    }),
  };
}
