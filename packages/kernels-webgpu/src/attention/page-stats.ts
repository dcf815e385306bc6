/** attention/page-stats: windows of pages for attention/page-stats.wgsl. */
import { type DType, dtypes, type KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"batch" | "kvHeads" | "headDim" | "pages" | "pageSize" | "maxPages" | "granularity", number>;

/** Workgroups of a KV head: enough for a whole context, few enough that a decode step's, most of them idle, cost nothing. */
const groupsOfHead = 64;

export function pageStats({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { batch, kvHeads, headDim, pages, pageSize, maxPages, granularity } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const dtype = variant.keyPages as DType;
  const slots = kvHeads * pageSize;
  const pageBytes = {
    keyPages: slots * headDim * dtypes[dtype].storage.BYTES_PER_ELEMENT,
    pageStats: (slots / granularity) * 8 * headDim,
    ...(dtype === "i8" ? { keyScale: 4 * slots } : {}),
  };
  const window = windowRows(pages, Object.values(pageBytes), limit);
  if (window === 0) return tooLong("pages", Math.max(...Object.values(pageBytes)), limit);
  if (4 * batch * maxPages > limit) return tooLong("pageTable", 4 * batch * maxPages, limit);
  const flags = [`values_${dtype}`];
  if (dtype === "i8") flags.push("scaled");
  if (dtype === "f16" && facts.features.has("shader-f16")) flags.push("shader_f16");
  if (variant.statistics === "meanstd") flags.push("means");
  return {
    name: "granules",
    passes: {
      describe: {
        pieces: ["gen/params", "lib/float", "lib/values", "attention/page-stats"],
        flags,
        entry: "describe_granules",
        constants: { workgroup_threads: facts.tunables.threads },
        bindings: {
          ...{ uniforms: 0, keyPages: 1 },
          ...(dtype === "i8" ? { keyScale: 2 } : {}),
          ...{ pageTable: 3, lengths: 4, from: 5, pageStats: 6, notes: 7 },
        },
      },
    },
    faults: { scratch: "notes", ports: ["pageTable", "lengths", "from"] },
    arrange: () => ({
      scratch: { notes: faultBytes },
      launches({ batch: now }) {
        if (now === 0) return [];
        const across = Math.min(groupsOfHead, (maxPages * pageSize) / granularity);
        return windowsOf(pages, window).map((held) => ({
          pass: "describe",
          workgroups: [across, Math.min((now as number) * kvHeads, most)],
          words: [held.first, held.count, 0, 0],
          ranges: Object.fromEntries(Object.entries(pageBytes).map(([name, size]) => [name, rangeOf(held, size)])),
        }));
      },
    }),
  };
}
