/** attention/hash-scores: tiles of granules and windows of pages for attention/hash-scores.wgsl. */
import type { KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"batch" | "queryHeads" | "kvHeads" | "bits" | "pages" | "pageSize" | "maxPages" | "granularity", number>;

/** Threads that share a granule: as in the shader. */
const lanes = 16;

export function hashScores({ axes }: KernelRequest, facts: DeviceFacts): Program | string {
  const { batch, queryHeads, kvHeads, bits, pages, pageSize, maxPages, granularity } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads } = facts.tunables;
  const granules = (maxPages * pageSize) / granularity;
  const whole = { queries: 4 * batch * queryHeads * bits, pageTable: 4 * batch * maxPages, scores: 4 * batch * kvHeads * granules };
  for (const [name, size] of Object.entries(whole))
    if (size > limit) return `${name} takes ${size} bytes, more than one binding of this device (${limit})`;
  const hashWords = ((queryHeads / kvHeads) * bits) / 32;
  const room = facts.maxComputeWorkgroupStorageSize;
  if (4 * (hashWords + threads) + 32 > room) return `the hashes of a KV head's queries do not fit ${room} bytes of workgroup memory`;
  const pageBytes = (kvHeads * pageSize * bits) / 8;
  const window = windowRows(pages, [pageBytes], limit);
  if (window === 0) return tooLong("hashPages", pageBytes, limit);
  return {
    name: "words",
    passes: {
      score: {
        pieces: ["gen/params", "lib/float", "attention/score-pages", "attention/hash-scores"],
        flags: [],
        entry: "score_hashes",
        constants: { workgroup_threads: threads, hash_words: hashWords },
        bindings: { uniforms: 0, queries: 1, hashPages: 2, pageTable: 3, lengths: 4, scores: 5, notes: 6 },
      },
    },
    faults: { scratch: "notes", ports: ["pageTable", "lengths"] },
    arrange: () => ({
      scratch: { notes: faultBytes },
      launches({ batch: now }) {
        const tiles = (now as number) * kvHeads * Math.ceil(granules / (threads / lanes));
        if (tiles === 0) return [];
        const across = Math.min(tiles, most);
        return windowsOf(pages, window).map((held) => ({
          pass: "score",
          workgroups: [across, Math.min(Math.ceil(tiles / across), most)],
          words: [held.first, held.count, 0, 0],
          ranges: { hashPages: rangeOf(held, pageBytes) },
        }));
      },
    }),
  };
}
