/** attention/decode and its siblings: parts of contexts, windows of pages and batches of states for attention/decode.wgsl. */
import { type AnyAxes, type AnyVariant, type DType, dtypes, type KernelRequest, storageLength } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { Arrangement, DeviceFacts, Launch, Pass, Program } from "../program.js";
import { greatestDivisor } from "../windows.js";
import { joinColumns } from "./merge.js";

type Axes = Record<"batch" | "queryHeads" | "kvHeads" | "headDim" | "valueDim" | "pages" | "pageSize" | "maxPages" | "maskHeads", number> &
  Partial<Record<"granularity" | "lists" | "k", number>>;

/** Of a sibling: what its contexts are, and what else is kept of them. */
export type Kind = "whole" | "listed" | "weighed";

/** Heads that share what they see make a unit; positions of a context, at most. */
const groupHeads = ({ queryHeads, kvHeads, lists }: Axes, kind: Kind): number =>
  kind === "listed" && lists === queryHeads ? 1 : queryHeads / kvHeads;
const positionsOf = ({ maxPages, pageSize, k = 0, granularity = 1 }: Axes, kind: Kind): number =>
  kind === "listed" ? k * granularity : maxPages * pageSize;

/** Workgroups of one sequence that keep a large device busy: more parts only make more states to join. */
const wantedGroups = 1024;
/** Query heads that one workgroup keeps in registers. */
const mostHeads = 8;
/** Threads from which on loads are unrolled: a driver that computes on the CPU would only compile longer. */
const gpuThreads = 64;
/** Bytes of states that are worth a launch of their own. */
const stateBytes = 64 << 20;

export const decode = (request: KernelRequest, facts: DeviceFacts): Program | string => program(request, facts, "whole");

/** `piece`: the shader of a sibling's own pass. */
export function program({ axes, variant }: KernelRequest, facts: DeviceFacts, kind: Kind, piece = ""): Program | string {
  const sizes = axes as Axes;
  const dtype = variant.keyPages as DType;
  const bytes = dtypes[dtype].storage.BYTES_PER_ELEMENT;
  const { headDim, valueDim } = sizes;
  const half = dtype === "f16" && facts.features.has("shader-f16");
  const tile = tileOf(groupHeads(sizes, kind), 4 / bytes, facts);
  if (typeof tile === "string") return tile;
  const layout = layoutOf(sizes, bytes, tile, facts, kind, variant);
  if (typeof layout === "string") return layout;

  const { biased } = layout;
  const own = [...(kind === "whole" ? [] : [kind]), ...(biased ? ["biased"] : [])];
  const flags = [...own, ...(variant.mask ? ["masked"] : []), `values_${dtype}`, `lanes_${tile.lanes}`];
  if (dtype === "i8") flags.push("scaled");
  if (half) flags.push("shader_f16");
  if (facts.features.has("subgroups")) flags.push("subgroups");
  if ((headDim * bytes) % (half ? 8 : 16) === 0) flags.push("wide_keys");
  if (valueDim % 4 === 0) flags.push("wide_values", ...(tile.threads >= gpuThreads ? ["unrolled"] : []));
  const shared = ["gen/params", "lib/float", "lib/lanes", "attention/decode-states"];
  const attend: Pass = {
    pieces: [
      ...shared,
      "lib/values",
      "lib/words",
      "attention/decode-cache",
      "attention/decode",
      ...(biased ? ["attention/decode-bias"] : []),
      ...(kind === "weighed" ? ["attention/decode-granules"] : []),
    ],
    flags,
    entry: "attend",
    constants: { workgroup_threads: tile.threads, stage_words: tile.stageWords, head_blocks: tile.blocks },
    bindings: {
      ...{ uniforms: 0, queries: 1, keyPages: 2, valuePages: 3 },
      ...(dtype === "i8" ? { keyScale: 4, valueScale: 5 } : {}),
      ...(kind === "listed" ? {} : { ...(biased ? {} : { pageTable: 6 }), lengths: 7 }),
      ...(variant.mask ? { mask: 6 } : {}),
      ...{ states: 8 },
    },
  };
  const gather: Pass = {
    pieces: ["gen/params", "attention/decode-states", "attention/decode-gather"],
    flags: [...own, ...(variant.slopes ? ["slopes"] : [])],
    entry: "gather",
    constants: { workgroup_threads: facts.tunables.threads },
    bindings: { uniforms: 0, pageTable: 1, lengths: 2, ...(variant.slopes ? { slopes: 3 } : {}), states: 4 },
  };
  const lookUp: Pass = {
    pieces: ["gen/params", "attention/decode-states", piece],
    flags: own,
    entry: "look_up",
    constants: { workgroup_threads: facts.tunables.threads },
    bindings: { uniforms: 0, pageTable: 1, lengths: 2, selected: 3, states: 4 },
  };
  const scale: Pass = {
    pieces: [...shared, piece],
    flags: [...own, "lanes_1", ...(variant.sinks ? ["sinks"] : [])],
    entry: "scale_masses",
    constants: { workgroup_threads: facts.tunables.threads, tile_tokens: tile.threads },
    bindings: { uniforms: 0, states: 1, ...(variant.sinks ? { sinks: 2 } : {}), lengths: 3, masses: 4 },
  };
  const finish: Pass = {
    pieces: [...shared, "lib/join", "attention/decode-finish"],
    flags: [...own, "lanes_1", ...(variant.sinks ? ["sinks"] : [])],
    entry: "finish",
    constants: { workgroup_threads: facts.tunables.threads, join_columns: joinColumns(facts.tunables.threads) },
    bindings: { uniforms: 0, states: 1, ...(variant.sinks ? { sinks: 2 } : {}), out: 3, lse: 4 },
  };
  return {
    name: "parts",
    passes: {
      attend,
      finish,
      ...(biased ? { gather } : {}),
      ...(kind === "listed" ? { lookUp } : {}),
      ...(kind === "weighed" ? { scale } : {}),
    },
    faults: { scratch: "states", ports: ["pageTable", "lengths", ...(kind === "listed" ? ["selected"] : [])] },
    arrange: () => arrange(sizes, bytes, layout, facts, kind),
  };
}

interface Tile {
  readonly threads: number;
  readonly stageWords: number;
  /** Heads of a Lane, Lanes of a workgroup. */
  readonly lanes: 1 | 2 | 4;
  readonly blocks: number;
}

/** As many tokens and words of a key at once as fit. */
function tileOf(groupHeads: number, perWord: number, { maxComputeWorkgroupStorageSize: room, tunables }: DeviceFacts): Tile | string {
  const lanes = groupHeads >= 3 ? 4 : groupHeads === 2 ? 2 : 1;
  const blocks = groupHeads > 4 ? mostHeads / 4 : 1;
  // WGSL aligns each variable to 16 bytes at most.
  const laneBytes = 4 * lanes * blocks;
  for (let { threads } = tunables; threads >= 16; threads /= 2) {
    for (const stageWords of [16, 8, 4].filter((words) => words <= tunables.columns)) {
      const keys = 4 * threads * (stageWords + 1);
      const queries = stageWords * perWord * laneBytes;
      const shared = keys + queries + threads * (laneBytes + 4 + 16 * blocks * Math.max(lanes / 2, 2)) + laneBytes + 4;
      if (shared + 96 <= room) return { threads, stageWords, lanes, blocks };
    }
  }
  return `its tiles do not fit ${room} bytes of workgroup memory`;
}

interface Layout {
  /** Pages that one binding holds, and how many windows of them there are. */
  readonly pageWindow: number;
  readonly windows: number;
  /** Workgroups of a sequence and window along the context; by heads of a group; by columns of values. */
  readonly parts: number;
  readonly headParts: number;
  readonly columnParts: number;
  readonly fours: number;
  /** Sequences of a launch. */
  readonly sequences: number;
  /** Scratch words of a sequence behind its states: slots of its lists, or masses. */
  readonly slotWords: number;
  readonly massWords: number;
  /** Granules that a part can meet. */
  readonly statePlaces: number;
  /** Slopes or masks: what the pass that gathers leaves in the scratch, and the tokens of lists; of a sequence. */
  readonly biased: boolean;
  readonly gatheredWords: number;
  readonly tokenWords: number;
}

/** Nothing here but `sequences` depends on the batch, so that a sequence gives the same bits alone. */
function layoutOf(axes: Axes, bytes: number, tile: Tile, facts: DeviceFacts, kind: Kind, { slopes, mask }: AnyVariant): Layout | string {
  const {
    batch,
    queryHeads,
    kvHeads,
    headDim,
    valueDim,
    pages,
    pageSize,
    maxPages,
    maskHeads = 1,
    granularity = 1,
    lists = 1,
    k = 1,
  } = axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const whole = { queries: 4 * batch * queryHeads * headDim, out: 4 * batch * queryHeads * valueDim, pageTable: 4 * batch * maxPages };
  const listedOnly = kind === "listed" ? { selected: 4 * batch * lists * k } : {};
  const weighedOnly = kind === "weighed" ? { masses: 4 * batch * kvHeads * Math.ceil((maxPages * pageSize) / granularity) } : {};
  const masked = mask ? { mask: 4 * storageLength(mask as DType, [batch, maskHeads, maxPages * pageSize]) } : {};
  for (const [name, size] of Object.entries({ ...whole, ...listedOnly, ...weighedOnly, ...masked }))
    if (size > limit) return `${name} takes ${size} bytes, more than one binding of this device (${limit})`;

  const slots = kvHeads * pageSize;
  const pageBytes = [slots * headDim * bytes, slots * valueDim * bytes, ...(bytes === 1 ? [4 * slots] : [])];
  const largest = Math.max(...pageBytes);
  // Pages of a window start on 256 bytes in every tensor.
  const align = Math.max(...pageBytes.map((size) => 256 / greatestDivisor(256, size)));
  const pageWindow = largest * pages <= limit ? pages : Math.floor(limit / largest / align) * align;
  if (pageWindow === 0) return `${align} pages take ${align * largest} bytes, more than one binding of this device (${limit})`;
  const windows = Math.ceil(pages / pageWindow);

  const group = groupHeads(axes, kind);
  const headParts = Math.ceil(group / (tile.lanes * tile.blocks));
  const columns = Math.ceil(valueDim / 4);
  const columnParts = Math.ceil(columns / tile.threads);
  const fours = Math.ceil(columns / columnParts);
  const groups = (queryHeads / group) * headParts * columnParts;
  const perState = 4 * queryHeads * windows * (2 + valueDim);
  const positions = positionsOf(axes, kind);
  const slotWords = kind === "listed" ? lists * positions : 0;
  const biased = Boolean(slopes || mask);
  const tokenWords = biased ? slotWords : 0;
  // The slopes are there once; counted for each sequence.
  const gatheredWords = biased ? 1 + maxPages : 0;
  const slopeWords = biased ? queryHeads : 0;
  const parts = Math.min(
    Math.ceil(positions / tile.threads),
    Math.ceil(wantedGroups / groups),
    Math.floor((limit - faultBytes - 4 * (slotWords + tokenWords + gatheredWords + slopeWords)) / perState),
    most,
  );
  // A part has whole tiles of the longest context, and may begin within a granule.
  const partTokens = Math.ceil(Math.ceil(positions / tile.threads) / Math.max(1, parts)) * tile.threads;
  const statePlaces = kind === "weighed" ? Math.ceil(partTokens / granularity) + 1 : 0;
  const massWords = 2 * queryHeads * windows * parts * statePlaces;
  const perSequence = parts * perState + 4 * (slotWords + massWords + tokenWords + gatheredWords + slopeWords);
  const sequences = Math.min(Math.floor(Math.min(stateBytes, limit - faultBytes) / perSequence) || 1, Math.floor(most / groups));
  if (parts < 1 || sequences < 1 || faultBytes + perSequence > limit)
    return `${queryHeads} query heads of ${valueDim} columns need more workgroups or scratch than this device has`;
  return {
    pageWindow,
    windows,
    parts,
    headParts,
    columnParts,
    fours,
    sequences,
    slotWords,
    massWords,
    statePlaces,
    biased,
    gatheredWords,
    tokenWords,
  };
}

function arrange(axes: Axes, bytes: number, layout: Layout, facts: DeviceFacts, kind: Kind): Arrangement {
  const { batch, queryHeads, kvHeads, headDim, valueDim, pages, pageSize, maxPages, granularity = 1 } = axes;
  const {
    pageWindow,
    windows,
    parts,
    headParts,
    columnParts,
    fours,
    sequences,
    slotWords,
    massWords,
    statePlaces,
    biased,
    gatheredWords,
    tokenWords,
  } = layout;
  const group = groupHeads(axes, kind);
  const { threads } = facts.tunables;
  const mostGroups = facts.maxComputeWorkgroupsPerDimension;
  const states = windows * parts;
  const rows = Math.min(sequences, Math.max(1, batch)) * queryHeads;
  const valuesStart = 2 * rows * states;
  const moreStart = valuesStart + rows * states * valueDim;
  const held = Math.min(sequences, Math.max(1, batch));
  const gatheredStart = moreStart + held * (slotWords + massWords);
  const tokensStart = gatheredStart + (biased ? queryHeads + held * gatheredWords : 0);
  const mostWords = (count: number): number => Math.min(mostGroups, Math.ceil(count / threads));

  function launches(actual: AnyAxes): Launch[] {
    const out: Launch[] = [];
    for (let first = 0; first < (actual.batch as number); first += sequences) {
      const here = Math.min(sequences, (actual.batch as number) - first);
      const more = kind === "listed" ? [moreStart, 0, 0, 0] : kind === "weighed" ? [moreStart, statePlaces, states * statePlaces, 0] : [];
      const biases = biased ? [gatheredStart, tokensStart, 0, 0] : [];
      const words = (page: number, bound: number): number[] => {
        const state = (page / pageWindow) * parts;
        return [first, here, page, bound, parts, state, states, valuesStart, group, headParts, columnParts, fours, ...more, ...biases];
      };
      if (biased) out.push({ pass: "gather", workgroups: [mostWords(queryHeads + here * gatheredWords), 1], words: words(0, pages) });
      if (kind === "listed") out.push({ pass: "lookUp", workgroups: [mostWords(here * slotWords), 1], words: words(0, pages) });
      for (let page = 0; page < pages; page += pageWindow) {
        const bound = Math.min(pageWindow, pages - page);
        const range = (size: number) => ({ offset: page * kvHeads * pageSize * size, bytes: bound * kvHeads * pageSize * size });
        out.push({
          pass: "attend",
          workgroups: [parts, here * (queryHeads / group) * headParts * columnParts],
          words: words(page, bound),
          ranges: {
            keyPages: range(headDim * bytes),
            valuePages: range(valueDim * bytes),
            keyScale: range(4),
            valueScale: range(4),
          },
        });
      }
      out.push({
        pass: "finish",
        workgroups: [Math.ceil(valueDim / joinColumns(threads)), Math.min(mostGroups, here * queryHeads)],
        words: words(0, pages),
      });
      const masses = here * kvHeads * Math.ceil((maxPages * pageSize) / granularity);
      if (kind === "weighed") out.push({ pass: "scale", workgroups: [mostWords(masses), 1], words: words(0, pages) });
    }
    return out;
  }

  return { scratch: { states: faultBytes + 4 * (tokensStart + held * tokenWords) }, launches };
}
