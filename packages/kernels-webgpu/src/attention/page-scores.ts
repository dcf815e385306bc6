/** attention/page-scores: tiles of granules and windows of pages for attention/page-scores.wgsl. */
import type { KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"batch" | "queryHeads" | "kvHeads" | "headDim" | "pages" | "pageSize" | "maxPages" | "granularity", number>;

/** Threads that share a row, and rows of each: as in the shader. */
const lanes = 16;
const rowsEach = 4;

export function pageScores({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { batch, queryHeads, kvHeads, headDim, pages, pageSize, maxPages, granularity } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads } = facts.tunables;
  const granules = (maxPages * pageSize) / granularity;
  const whole = { queries: 4 * batch * queryHeads * headDim, pageTable: 4 * batch * maxPages, scores: 4 * batch * kvHeads * granules };
  for (const [name, size] of Object.entries(whole))
    if (size > limit) return `${name} takes ${size} bytes, more than one binding of this device (${limit})`;
  const pageBytes = ((kvHeads * pageSize) / granularity) * 8 * headDim;
  const window = windowRows(pages, [pageBytes], limit);
  if (window === 0) return tooLong("pageStats", pageBytes, limit);
  const flags = [...(variant.statistics === "meanstd" ? ["means"] : []), ...(variant.pool === "max" ? ["largest"] : [])];
  return {
    name: "rows",
    passes: {
      score: {
        pieces: ["gen/params", "lib/float", "attention/score-pages", "attention/page-scores"],
        flags,
        entry: "score_granules",
        constants: { workgroup_threads: threads },
        bindings: { uniforms: 0, queries: 1, pageStats: 2, pageTable: 3, lengths: 4, scores: 5, notes: 6 },
      },
    },
    faults: { scratch: "notes", ports: ["pageTable", "lengths"] },
    arrange: () => ({
      scratch: { notes: faultBytes },
      launches({ batch: now }) {
        const tiles = (now as number) * kvHeads * Math.ceil(granules / ((threads / lanes) * rowsEach));
        if (tiles === 0) return [];
        const across = Math.min(tiles, most);
        return windowsOf(pages, window).map((held) => ({
          pass: "score",
          workgroups: [across, Math.min(Math.ceil(tiles / across), most)],
          words: [held.first, held.count, 0, 0],
          ranges: { pageStats: rangeOf(held, pageBytes) },
        }));
      },
    }),
  };
}
