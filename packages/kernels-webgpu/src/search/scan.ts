/** search/scan: tiles, chunks and windows of search/scan.wgsl. */
import { type AnyAxes, type DType, dtypes, HotsetError, type KernelRequest } from "@hotset/core/backend";
import type { Arrangement, DeviceFacts, Launch, Pass, Program, Tunables } from "../program.js";
import { greatestDivisor } from "../windows.js";

type Axes = Record<"batch" | "count" | "dim" | "k", number>;

/** Workgroups that keep a large device busy: more chunks only make more lists to merge. */
const wantedGroups = 1024;
/** Entries that one workgroup merges: beyond, a second level is faster than a longer loop. */
const mergeEntries = 8192;
/** Windows of queries start on multiples of this: their outputs then start on 256 bytes. */
const windowQueries = 64;
/** Bytes of lists that are worth a window of queries of its own. */
const listBytes = 64 << 20;

export function scan({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { batch, count, dim, k } = axes as Axes;
  const dtype = variant.rows as DType;
  const { threads } = facts.tunables;
  const tile = tileOf(batch, k, facts);
  const limit = facts.maxStorageBufferBindingSize;
  if (typeof tile === "string") return tile;
  if (Math.ceil(count / 32) * 4 > limit && variant.filter) return `the filter of ${count} rows does not fit one binding of ${limit} bytes`;

  const flags = [`values_${dtype}`, ...(dtype === "i8" ? ["scaled"] : []), ...(variant.filter ? ["filtered"] : [])];
  if (dtype === "f32" || dtype === "bf16") flags.push("subnormals");
  if (facts.features.has("subgroups")) flags.push("subgroups");
  if (dtype === "f16" && facts.features.has("shader-f16")) flags.push("shader_f16");
  const bytes = dtypes[dtype].storage.BYTES_PER_ELEMENT;
  const shared = { metric: ["cos", "ip", "l2"].indexOf(variant.metric as string), workgroup_threads: threads };
  const optional = { ...(dtype === "i8" ? { rowScale: 3 } : {}), ...(variant.filter ? { filter: 4 } : {}) };
  const pass = (entry: string, constants: Pass["constants"], bindings: Pass["bindings"]): Pass => ({
    pieces: ["gen/params", "lib/float", "lib/values", "lib/top-k", "search/scan"],
    flags,
    entry,
    constants: { ...shared, ...constants },
    bindings: { uniforms: 0, ...bindings },
  });
  const scoring = { top_lists: tile.queries, top_capacity: tile.capacity, column_tile: tile.columns };
  const join = { top_lists: 1, top_capacity: roomFor(k, facts.tunables) + 2 * threads };
  return {
    name: "tiles",
    passes: {
      score: pass("score", scoring, { queries: 1, rows: 2, ...optional, out: 5 }),
      merge: pass("merge", join, { in: 6, out: 5 }),
      finish: pass("finish", join, { in: 6, ids: 7, scores: 8, found: 9 }),
    },
    arrange: (pitch) => arrange({ batch, count, dim, k }, pitch.rows as number, bytes, tile, facts),
  };
}

interface Tile {
  readonly queries: number;
  readonly columns: number;
  readonly capacity: number;
}

/** As many queries share a pass over the rows as their lists leave room for; then as many columns as fit. */
function tileOf(batch: number, k: number, { maxComputeWorkgroupStorageSize: room, tunables }: DeviceFacts): Tile | string {
  const { threads } = tunables;
  for (let { queries } = tunables; queries >= 1; queries /= 2) {
    if (queries > 2 && queries / 2 >= batch) continue;
    for (const columns of [32, 16, 8].filter((size) => size <= tunables.columns)) {
      for (const spare of [threads, 0]) {
        const capacity = roomFor(k, tunables) + threads + spare;
        const bytes = 4 * (threads * (columns + 1) + queries * columns + 2 * threads) + queries * (8 * capacity + 20) + 16;
        // WGSL rounds each variable up to 16 bytes.
        if (bytes + 160 <= room) return { queries, columns, capacity };
      }
    }
  }
  return `its tiles do not fit ${room} bytes of workgroup memory`;
}

const roomFor = (k: number, { results }: Tunables): number => 2 ** Math.ceil(Math.log2(Math.max(results, k)));

/** Rows of a workgroup: enough workgroups for the device, and chunks that are long beside the k they keep. */
function chunkRows(count: number, groups: number, k: number, threads: number): number {
  const even = Math.ceil((count * Math.max(1, groups)) / wantedGroups / threads) * threads;
  return Math.min(2 ** 30, Math.max(even, 4 * threads, Math.ceil((4 * k) / threads) * threads));
}

const fanIn = (k: number): number => Math.max(2, Math.floor(mergeEntries / k));
/** Lists after one level of merging. */
const mergedLists = (lists: number, k: number): number => Math.ceil(lists / fanIn(k));

/** Windows of rows and of queries, by what one binding holds; results of one shape are the same on every run. */
function arrange(capacity: Axes, pitch: number, bytes: number, tile: Tile, facts: DeviceFacts): Arrangement {
  const { batch, count, dim, k } = capacity;
  const limit = facts.maxStorageBufferBindingSize;
  const rowBytes = pitch * bytes;
  // Rows and scales of a window start on 256 bytes.
  const align = Math.max(64, 256 / greatestDivisor(256, rowBytes));
  const rowWindow = rowBytes * count <= limit ? Math.max(1, count) : Math.floor(limit / rowBytes / align) * align;
  let chunk = chunkRows(count, Math.ceil(batch / tile.queries), k, facts.tunables.threads);
  // Fewer, longer chunks where the lists of the least window of queries would not fit one binding.
  while (Math.min(windowQueries, batch) * Math.ceil(count / rowWindow) * Math.ceil(rowWindow / chunk) * k * 8 > limit && chunk < rowWindow)
    chunk *= 2;
  const perWindow = Math.ceil(rowWindow / chunk);
  const lists = (rows: number): number => Math.floor(rows / rowWindow) * perWindow + Math.ceil((rows % rowWindow) / chunk);
  const perQuery = Math.max(1, lists(count)) * k * 8;
  const most = Math.min(
    limit / (4 * Math.max(dim, k)),
    Math.max(windowQueries, Math.min(listBytes, limit) / perQuery),
    facts.maxComputeWorkgroupsPerDimension,
  );
  const queryWindow = Math.floor(most / windowQueries) * windowQueries;
  const held = Math.min(queryWindow, Math.max(1, batch));
  if (rowWindow === 0 || queryWindow === 0 || held * perQuery > limit)
    throw new HotsetError("unsupported", {
      where: "webgpu: search/scan",
      expected: `bindings of at most ${limit} bytes`,
      received: `rows ${rowBytes} bytes apart, ${count} of them, k = ${k}`,
      hint: "Search in parts, or on a backend that has no such limit.",
    });

  function launches(actual: AnyAxes): Launch[] {
    const { batch: queriesNow, count: rowsNow } = actual as Axes;
    const out: Launch[] = [];
    const total = lists(rowsNow);
    for (let query = 0; query < queriesNow; query += queryWindow) {
      const queries = Math.min(queryWindow, queriesNow - query);
      for (let row = 0, list = 0; row < rowsNow; row += rowWindow, list += perWindow) {
        const rows = Math.min(rowWindow, rowsNow - row);
        out.push({
          pass: "score",
          workgroups: [Math.ceil(rows / chunk), Math.ceil(queries / tile.queries)],
          words: [row, rows, chunk, queries, list, total, 0, 0, pitch % (4 / bytes) === 0 ? 1 : 0],
          ranges: {
            queries: { offset: query * dim * 4, bytes: queries * dim * 4 },
            rows: { offset: row * rowBytes, bytes: (rows - 1) * rowBytes + dim * bytes },
            rowScale: { offset: row * 4, bytes: rows * 4 },
          },
          scratch: { out: "first" },
        });
      }
      out.push(...joins(total, query, queries));
    }
    return out;
  }

  function joins(total: number, query: number, queries: number): Launch[] {
    const out: Launch[] = [];
    let [source, target] = ["first", "second"] as [string, string];
    let left = total;
    for (; left > fanIn(k); left = mergedLists(left, k)) {
      const next = mergedLists(left, k);
      const words = [0, 0, 0, queries, 0, next, left, fanIn(k)];
      out.push({ pass: "merge", workgroups: [next, queries], words, scratch: { in: source, out: target } });
      [source, target] = [target, source];
    }
    const results = { offset: query * k * 4, bytes: queries * k * 4 };
    out.push({
      pass: "finish",
      workgroups: [1, queries],
      words: [0, 0, 0, queries, 0, 0, left, Math.max(1, left)],
      ranges: { ids: results, scores: results, found: { offset: query * 4, bytes: queries * 4 } },
      scratch: { in: source },
    });
    return out;
  }

  return { scratch: { first: held * perQuery, second: held * Math.max(1, mergedLists(lists(count), k)) * k * 8 }, launches };
}
