/** kv-cache/append: the passes of kv-cache/append.wgsl, and windows of pages and of tokens. */
import { type DType, dtypes, type KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Launch, Pass, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"tokens" | "kvHeads" | "headDim" | "valueDim" | "pages" | "pageSize", number>;

export function append({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, kvHeads, headDim, valueDim, pages, pageSize } = axes as Axes;
  const dtype = variant.keyPages as DType;
  const bytes = dtypes[dtype].storage.BYTES_PER_ELEMENT;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads } = facts.tunables;
  const scaled = dtype === "i8";
  const workBytes = faultBytes + 4 * tokens;
  if (workBytes > limit) return tooLong("slots", workBytes, limit);
  const slots = kvHeads * pageSize;
  const pageBytes = { keyPages: slots * headDim * bytes, valuePages: slots * valueDim * bytes };
  const scales = scaled ? { keyScale: 4 * slots, valueScale: 4 * slots } : undefined;
  const pageWindow = windowRows(pages, Object.values({ ...pageBytes, ...scales }), limit);
  if (pageWindow === 0) return tooLong("pages", Math.max(...Object.values(pageBytes)), limit);
  const tokenBytes = { keys: 4 * kvHeads * headDim, values: 4 * kvHeads * valueDim };
  const tokenWindow = windowRows(tokens, Object.values(tokenBytes), limit);
  if (tokenWindow === 0) return tooLong("keys", Math.max(...Object.values(tokenBytes)), limit);

  const pass = (entry: string, flags: readonly string[], bindings: Readonly<Record<string, number>>): Pass => ({
    pieces: ["gen/params", "lib/float", "kv-cache/append"],
    flags,
    entry,
    constants: { workgroup_threads: threads },
    bindings: { uniforms: 0, ...bindings },
  });
  const stored = { keys: 1, values: 2, work: 3, keyPages: 4, valuePages: 5, ...(scaled ? { keyScale: 6, valueScale: 7 } : {}) };
  return {
    name: "rows",
    passes: { claim: pass("claim", ["claims"], { slots: 1, work: 2 }), store: pass("store", [`values_${dtype}`], stored) },
    faults: { scratch: "work", ports: ["slots"] },
    arrange: () => ({
      scratch: { work: workBytes },
      launches({ tokens: given }) {
        const now = given as number;
        if (now === 0) return [];
        const out: Launch[] = [{ pass: "claim", workgroups: [Math.min(now, most), 1], words: [0, 0, 0, 0] }];
        for (const some of windowsOf(now, tokenWindow))
          for (const held of windowsOf(pages, pageWindow)) {
            const across = Math.min(kvHeads, most);
            out.push({
              pass: "store",
              workgroups: [across, Math.min(Math.ceil((some.count * kvHeads) / across), most)],
              words: [held.first * pageSize, held.count * pageSize, some.first, some.count],
              ranges: Object.fromEntries([
                ...Object.entries(tokenBytes).map(([name, size]) => [name, rangeOf(some, size)]),
                ...Object.entries({ ...pageBytes, ...scales }).map(([name, size]) => [name, rangeOf(held, size)]),
              ]),
            });
          }
        return out;
      },
    }),
  };
}
