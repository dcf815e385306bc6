/** attention/continual-retroactive: the passes of attention/continual-retroactive.wgsl. */
import type { KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Pass, Program } from "../program.js";
import { type RingAxes, ringRefusal } from "./continual-single.js";

export function continualRetroactive({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { streams, heads, window, headDim } = axes as RingAxes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  // A row's own numbers, and in scratch what leaves and a word a row: less than three more a row.
  const refusal = ringRefusal(4 * streams * heads * (window * (headDim + 3) + 2 * headDim + 4) + faultBytes, limit);
  if (refusal) return refusal;
  const { threads } = facts.tunables;
  const pass = (entry: string, flags: readonly string[], bindings: Readonly<Record<string, number>>): Pass => ({
    pieces: ["gen/params", "lib/float", "attention/continual-rows", "attention/continual-retroactive"],
    flags,
    entry,
    constants: { workgroup_threads: threads },
    bindings: { uniforms: 0, ...bindings },
  });
  const rows = { queryRing: 1, keyRing: 2, valueRing: 3, rows: 4, out: 5, work: 6, error: 7 };
  return {
    name: "rows",
    passes: {
      insert: pass("insert", ["inserts"], { query: 1, key: 2, value: 3, queryRing: 4, keyRing: 5, valueRing: 6, steps: 7, work: 8 }),
      count: pass("count", ["counts"], { steps: 1, error: 2, recomputed: 3 }),
      update: pass("update", ["rows", "updates"], { ...rows, recomputed: 8 }),
      compute: pass("compute", ["rows", "exact"], rows),
    },
    faults: { scratch: "work", ports: ["steps"] },
    arrange: () => ({
      scratch: { work: faultBytes + 4 * Math.max(1, streams * heads * (4 + 2 * headDim + window)) },
      launches({ streams: given }) {
        const now = given as number;
        if (now === 0) return [];
        const across = (groups: number) => [Math.min(groups, most), 1] as const;
        return [
          { pass: "insert", workgroups: across(now * heads), words: [] },
          { pass: "count", workgroups: across(Math.ceil((now * heads) / threads)), words: [] },
          { pass: "update", workgroups: across(Math.ceil((now * heads * window) / threads)), words: [] },
          { pass: "compute", workgroups: across(now * heads * window), words: [] },
        ];
      },
    }),
  };
}
