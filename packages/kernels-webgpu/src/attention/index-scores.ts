/** attention/index-scores: tiles of tokens and windows of pages for attention/index-scores.wgsl. */
import type { KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"batch" | "heads" | "indexDim" | "pages" | "pageSize" | "maxPages" | "granularity", number>;

export function indexScores({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { batch, heads, indexDim, pages, pageSize, maxPages, granularity } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads } = facts.tunables;
  const granules = (maxPages * pageSize) / granularity;
  const whole = { queries: 4 * batch * heads * indexDim, pageTable: 4 * batch * maxPages, scores: 4 * batch * granules };
  for (const [name, size] of Object.entries(whole))
    if (size > limit) return `${name} takes ${size} bytes, more than one binding of this device (${limit})`;
  const pageBytes = { indexKeys: pageSize * indexDim, indexScale: 4 * pageSize };
  const window = windowRows(pages, Object.values(pageBytes), limit);
  if (window === 0) return tooLong("pages", Math.max(...Object.values(pageBytes)), limit);
  return {
    name: "tokens",
    passes: {
      score: {
        pieces: ["gen/params", "lib/float", "lib/values", "attention/score-pages", "attention/index-scores"],
        flags: ["values_i8"],
        entry: "score_tokens",
        constants: { workgroup_threads: threads },
        bindings: {
          ...{ uniforms: 0, queries: 1, weights: 2, indexKeys: 3, indexScale: 4 },
          ...{ pageTable: 5, lengths: 6, scores: 7, notes: 8 },
        },
      },
    },
    faults: { scratch: "notes", ports: ["pageTable", "lengths"] },
    arrange: () => ({
      scratch: { notes: faultBytes },
      launches({ batch: now }) {
        const tiles = (now as number) * Math.ceil(granules / Math.max(1, Math.floor(threads / granularity)));
        if (tiles === 0) return [];
        const across = Math.min(tiles, most);
        return windowsOf(pages, window).map((held) => ({
          pass: "score",
          workgroups: [across, Math.min(Math.ceil(tiles / across), most)],
          words: [held.first, held.count, 0, 0],
          ranges: Object.fromEntries(Object.entries(pageBytes).map(([name, size]) => [name, rangeOf(held, size)])),
        }));
      },
    }),
  };
}
