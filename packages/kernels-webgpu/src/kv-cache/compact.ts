/** kv-cache/compact: the passes of kv-cache/compact.wgsl, stretches of kept tokens and windows of pages. */
import { type DType, dtypes, type KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Launch, Pass, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"batch" | "kvHeads" | "headDim" | "valueDim" | "pages" | "pageSize" | "maxPages" | "maxKept", number>;

/** Bytes of rows on their way that are worth a launch of their own. */
const movedBytes = 64 << 20;

export function compact({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { batch, kvHeads, headDim, valueDim, pages, pageSize, maxPages, maxKept } = axes as Axes;
  const dtype = variant.keyPages as DType;
  const bytes = dtypes[dtype].storage.BYTES_PER_ELEMENT;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads } = facts.tunables;
  const lists = batch * kvHeads;
  const workBytes = faultBytes + 8 * lists * maxKept;
  for (const [name, size] of Object.entries({ pageTable: 4 * batch * maxPages, "where kept rows are": workBytes }))
    if (size > limit) return `${name} takes ${size} bytes, more than one binding of this device (${limit})`;
  const slots = kvHeads * pageSize;
  if (slots * pages >= 2 ** 32) return `${slots * pages} rows are more than 32 bits count`;
  const scaleBytes = dtype === "i8" ? 4 : 0;
  const row = { keyPages: headDim * bytes, valuePages: valueDim * bytes };
  const scales = scaleBytes ? { keyScale: scaleBytes, valueScale: scaleBytes } : undefined;
  const pageBytes = Object.values({ ...row, ...scales }).map((size) => slots * size);
  const pageWindow = windowRows(pages, pageBytes, limit);
  if (pageWindow === 0) return tooLong("pages", Math.max(...pageBytes), limit);

  const words = (size: number): number => Math.ceil(size / 4);
  const movedWords = words(row.keyPages) + words(row.valuePages) + (2 * scaleBytes) / 4;
  const putWords = movedWords + (row.keyPages % 4 ? 1 : 0) + (row.valuePages % 4 ? 1 : 0);
  // Tokens of a stretch, of all heads together: what scratch holds, and what the workgroups of a launch reach.
  const held = Math.floor(Math.min(movedBytes, limit) / (4 * movedWords));
  const reached = Math.floor(Math.min(most * most * threads, 2 ** 32 - threads * most) / putWords);
  const stretch = Math.min(held, reached);
  const keptStretch = Math.min(stretch, Math.max(1, maxKept));
  const listStretch = Math.floor(stretch / keptStretch);

  const pass = (entry: string, flags: readonly string[], bindings: Readonly<Record<string, number>>): Pass => ({
    pieces: ["gen/params", "kv-cache/compact"],
    flags: [...flags, ...(scaleBytes ? ["scaled"] : [])],
    entry,
    constants: { workgroup_threads: threads, key_bytes: row.keyPages, value_bytes: row.valuePages, scale_bytes: scaleBytes },
    bindings: { uniforms: 0, ...bindings },
  });
  const cache = { work: 1, keyPages: 2, valuePages: 3, ...(scales ? { keyScale: 4, valueScale: 5 } : {}), moved: 6 };
  const spread = (items: number): readonly [number, number] => {
    const groups = Math.ceil(items / threads);
    const across = Math.min(groups, most);
    return [across, Math.ceil(groups / across)];
  };
  return {
    name: "stretches",
    passes: {
      check: pass("check", ["checks"], { pageTable: 1, lengths: 2, kept: 3, keptCount: 4, work: 5 }),
      take: pass("take", ["takes"], cache),
      put: pass("put", [], cache),
    },
    faults: { scratch: "work", ports: ["pageTable", "lengths", "kept", "keptCount"] },
    arrange: () => ({
      scratch: { work: workBytes, moved: Math.max(4, 4 * movedWords * keptStretch * Math.min(listStretch, Math.max(1, lists))) },
      launches({ batch: given }) {
        const now = (given as number) * kvHeads;
        if (now === 0) return [];
        const out: Launch[] = [{ pass: "check", workgroups: [Math.min(now, most), 1], words: [0, 0, 0, 0, 0, 0] }];
        for (const some of windowsOf(now, listStretch))
          for (const tokens of windowsOf(maxKept, keptStretch))
            for (const name of ["take", "put"])
              for (const bound of windowsOf(pages, pageWindow))
                out.push({
                  pass: name,
                  workgroups: spread(some.count * tokens.count * (name === "take" ? movedWords : putWords)),
                  words: [bound.first * slots, bound.count * slots, some.first, some.count, tokens.first, tokens.count],
                  ranges: Object.fromEntries(
                    Object.entries({ ...row, ...scales }).map(([port, size]) => [port, rangeOf(bound, slots * size)]),
                  ),
                });
        return out;
      },
    }),
  };
}
