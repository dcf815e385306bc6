/** attention/prefill: tiles of rows, windows of tokens and of pages for attention/prefill.wgsl. */
import { type AnyAxes, type DType, dtypes, type KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import { roundUp } from "../flags.js";
import type { Arrangement, DeviceFacts, Launch, Pass, Program } from "../program.js";

type Axes = Record<"tokens" | "batch" | "queryHeads" | "kvHeads" | "headDim" | "valueDim" | "pages" | "pageSize" | "maxPages", number>;

/** Windows of tokens start on multiples of this: their queries and outputs then start on 256 bytes. */
const windowTokens = 64;
/** Threads from which on a thread keeps more than four rows of values; a driver that computes on the CPU would only compile longer. */
const gpuThreads = 64;
/** Words of scratch before the spans of sequences, behind the faults; words of a span; words of a row's state. */
const headWords = 4;
const spanWords = 4;
const stateWords = 2;

export function prefill({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const sizes = axes as Axes;
  const { headDim, valueDim } = sizes;
  const dtype = variant.keyPages as DType;
  const bytes = dtypes[dtype].storage.BYTES_PER_ELEMENT;
  const tile = tileOf(valueDim, 4 / bytes, facts);
  if (typeof tile === "string") return tile;
  const layout = layoutOf(sizes, bytes, tile, facts);
  if (typeof layout === "string") return layout;

  const half = dtype === "f16" && facts.features.has("shader-f16");
  const flags = ["prefill", `values_${dtype}`, "lanes_4"];
  if (dtype === "i8") flags.push("scaled");
  if (half) flags.push("shader_f16");
  if ((headDim * bytes) % (half ? 8 : 16) === 0) flags.push("wide_keys");
  if (valueDim % 4 === 0) flags.push("wide_values", ...(tile.threads >= gpuThreads ? ["unrolled"] : []));
  const attend: Pass = {
    pieces: [
      ...["gen/params", "lib/float", "lib/lanes", "lib/values", "lib/words"],
      ...["attention/prefill-work", "attention/decode-cache", "attention/prefill-values", "attention/prefill"],
    ],
    flags,
    entry: "attend",
    constants: {
      workgroup_threads: tile.threads,
      tile_rows: tile.rows,
      tile_tokens: tile.tokens,
      stage_words: tile.stageWords,
      out_fours: tile.fours,
    },
    bindings: {
      ...{ uniforms: 0, work: 1, keyPages: 2, valuePages: 3 },
      ...(dtype === "i8" ? { keyScale: 4, valueScale: 5 } : {}),
      ...{ queries: 6, pageTable: 7, out: 8 },
    },
  };
  const around = (entry: string, bindings: Pass["bindings"]): Pass => ({
    pieces: ["gen/params", "lib/float", "attention/prefill-work", "attention/prefill-rows"],
    flags: [],
    entry,
    constants: { workgroup_threads: facts.tunables.threads },
    bindings: { uniforms: 0, work: 1, ...bindings },
  });
  return {
    name: "tiles",
    passes: { begin: around("begin", { queryOffsets: 2, lengths: 3 }), attend, finish: around("finish", { out: 4, lse: 5 }) },
    faults: { scratch: "work", ports: ["pageTable", "queryOffsets", "lengths"] },
    arrange: () => arrange(sizes, bytes, tile, layout, facts),
  };
}

interface Tile {
  readonly threads: number;
  readonly rows: number;
  readonly tokens: number;
  readonly stageWords: number;
  /** Threads side by side on a row of values. */
  readonly fours: number;
}

/** A thread has 4 rows x 4 tokens; then as many columns of a key at once as fit, up to 32. */
function tileOf(valueDim: number, perWord: number, { maxComputeWorkgroupStorageSize: room, tunables }: DeviceFacts): Tile | string {
  for (let { threads } = tunables; threads >= 16; threads /= 2) {
    const rows = 2 ** Math.floor(Math.log2(16 * threads) / 2);
    const tokens = (16 * threads) / rows;
    const least = (4 * threads) / rows;
    const most = threads >= gpuThreads ? 4 * least : least;
    const fours = Math.min(most, Math.max(least, 2 ** Math.ceil(Math.log2(valueDim / 4))));
    for (const stageWords of [16, 8, 4].filter((words) => words * Math.min(perWord, 2) <= tunables.columns)) {
      if (((stageWords / 4) * tokens) % threads) continue;
      const staged = 4 * tokens * (stageWords + 1) + 4 * rows * stageWords * perWord;
      if (staged + 4 * tokens * rows + 4 * tokens + 8 * rows + 32 <= room) return { threads, rows, tokens, stageWords, fours };
    }
  }
  return `its tiles do not fit ${room} bytes of workgroup memory`;
}

interface Layout {
  /** Pages that one binding holds, and how many windows of them there are. */
  readonly pageWindow: number;
  readonly windows: number;
  /** Tokens of a launch. */
  readonly tokens: number;
  /** Workgroups that share the columns of values. */
  readonly columnParts: number;
}

function layoutOf(axes: Axes, bytes: number, tile: Tile, { maxStorageBufferBindingSize: limit }: DeviceFacts): Layout | string {
  const { tokens, batch, queryHeads, kvHeads, headDim, valueDim, pages, pageSize, maxPages } = axes;
  if (4 * batch * maxPages > limit) return `pageTable takes ${4 * batch * maxPages} bytes, more than one binding of this device (${limit})`;

  const slots = kvHeads * pageSize;
  const pageBytes = [slots * headDim * bytes, slots * valueDim * bytes, ...(bytes === 1 ? [4 * slots] : [])];
  const largest = Math.max(...pageBytes);
  // Pages of a window start on 256 bytes in every tensor.
  const align = Math.max(...pageBytes.map((size) => 256 / greatestDivisor(256, size)));
  const pageWindow = largest * pages <= limit ? pages : Math.floor(limit / largest / align) * align;
  if (pageWindow === 0) return `${align} pages take ${align * largest} bytes, more than one binding of this device (${limit})`;
  const windows = Math.ceil(pages / pageWindow);

  const fixed = faultBytes + 4 * (headWords + spanWords * batch);
  const perToken = 4 * queryHeads * Math.max(headDim, valueDim);
  const stateBytes = 4 * queryHeads * stateWords * Math.min(2, windows);
  const most = Math.floor(Math.min(limit / perToken, (limit - fixed) / stateBytes));
  const here = most >= tokens ? Math.max(1, tokens) : Math.floor(most / windowTokens) * windowTokens;
  if (here <= 0) return `${windowTokens} tokens of ${queryHeads} query heads take more than one binding of this device (${limit})`;
  return { pageWindow, windows, tokens: here, columnParts: Math.ceil(valueDim / (4 * tile.fours)) };
}

function arrange(axes: Axes, bytes: number, tile: Tile, layout: Layout, facts: DeviceFacts): Arrangement {
  const { batch, queryHeads, kvHeads, headDim, valueDim, pages, pageSize } = axes;
  const { pageWindow, windows, tokens: most, columnParts } = layout;
  const group = queryHeads / kvHeads;
  const { maxComputeWorkgroupsPerDimension: mostGroups, tunables } = facts;
  const statesStart = headWords + spanWords * batch;
  const statesWords = stateWords * most * queryHeads;
  // Windows of pages write their states by turns.
  const statesAt = (window: number): number => statesStart + (window % 2) * statesWords;

  function launches(actual: AnyAxes): Launch[] {
    const tokens = actual.tokens as number;
    const out: Launch[] = [];
    for (let first = 0; first === 0 || first < tokens; first += most) {
      const here = Math.min(most, tokens - first);
      const words = (window: number): number[] => {
        const page = window * pageWindow;
        const bound = Math.min(pageWindow, pages - page);
        const resumes = window > 0 ? 1 : 0;
        const continues = window < windows - 1 ? 1 : 0;
        const spans = [first, here, page, bound, group, tile.rows, columnParts, resumes, continues];
        return [...spans, statesAt(Math.max(0, window - 1)), statesAt(window), 0];
      };
      const rowGroups = Math.max(1, Math.min(mostGroups, Math.ceil((here * queryHeads) / tunables.threads)));
      const rows = {
        queries: { offset: 4 * first * queryHeads * headDim, bytes: 4 * here * queryHeads * headDim },
        out: { offset: 4 * first * queryHeads * valueDim, bytes: 4 * here * queryHeads * valueDim },
        lse: { offset: 4 * first * queryHeads, bytes: 4 * here * queryHeads },
      };
      out.push({ pass: "begin", workgroups: [rowGroups, 1], words: words(windows - 1) });
      if (here === 0) break;
      // Each sequence may fill its last tile in part; where bad offsets make more, workgroups go on.
      const tiles = Math.floor((here * group) / tile.rows) + Math.min(actual.batch as number, here);
      for (let window = 0; window < windows && tiles > 0; window++) {
        const [, , page, bound] = words(window) as [number, number, number, number];
        const range = (size: number) => ({ offset: page * kvHeads * pageSize * size, bytes: bound * kvHeads * pageSize * size });
        out.push({
          pass: "attend",
          workgroups: [Math.min(mostGroups, tiles), Math.min(mostGroups, kvHeads * columnParts)],
          words: words(window),
          ranges: {
            ...rows,
            keyPages: range(headDim * bytes),
            valuePages: range(valueDim * bytes),
            keyScale: range(4),
            valueScale: range(4),
          },
        });
      }
      out.push({ pass: "finish", workgroups: [rowGroups, 1], words: words(windows - 1), ranges: rows });
    }
    return out;
  }

  const scratch = faultBytes + 4 * (statesStart + statesWords * Math.min(2, windows));
  return { scratch: { work: roundUp(scratch, 16) }, launches };
}

function greatestDivisor(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y) [x, y] = [y, x % y];
  return x;
}
