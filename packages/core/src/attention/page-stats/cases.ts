import type { AnyVariant, ReferenceCall } from "../../op/define.js";
import type { Case, InputRequest, Mutant, OpCases, Tensors } from "../../testing/case.js";
import type { Random } from "../../testing/random.js";
import { benchCache, cache, full, type Lengths, of, ragged } from "../decode/inputs.js";
import { changing, shows, withTensors } from "../decode/mutants.js";
import type { DecodeAxes } from "../decode/reference.js";
import type { PageStatsAxes, PageStatsTensors } from "./reference.js";

/** Statistics that are there already: what is not made anew keeps them. */
export const keysOf =
  (lengths: Lengths, from: (length: number, random: Random) => number = () => 0) =>
  (request: InputRequest): Tensors => {
    const axes = request.axes as PageStatsAxes;
    const {
      keyPages,
      keyScale,
      pageTable,
      lengths: held,
    } = cache(lengths)({ ...request, axes: asDecode(axes) }) as Record<string, Int32Array>;
    return {
      keyPages: keyPages as Int32Array,
      ...(keyScale ? { keyScale } : {}),
      pageTable: pageTable as Int32Array,
      lengths: held as Int32Array,
      from: Int32Array.from(held as Int32Array, (length) => from(length, request.random)),
      pageStats: request.random.values(statsLength(axes), () => 100 + request.random.normal()),
    };
  };

const asDecode = (axes: PageStatsAxes): DecodeAxes => ({ ...axes, queryHeads: axes.kvHeads, valueDim: 1, maskHeads: 1 });
export const statsLength = ({ pages, kvHeads, pageSize, granularity, headDim }: PageStatsAxes): number =>
  ((pages * kvHeads * pageSize) / granularity) * 2 * headDim;

const sizes = (headDim: number, page: [size: number, most: number], rest: Partial<PageStatsAxes> = {}): PageStatsAxes => {
  const [pageSize, maxPages] = page;
  const { batch = 2 } = rest;
  return { batch, kvHeads: 2, headDim, pages: batch * maxPages + 2, pageSize, maxPages, granularity: pageSize, ...rest };
};

const someTokensBefore = (length: number, random: Random): number => random.below(length + 1);
const changed =
  (inputs: Case["inputs"], change: (tensors: PageStatsTensors, axes: PageStatsAxes, variant: AnyVariant) => void): Case["inputs"] =>
  (request) => {
    const tensors = inputs(request);
    change(tensors as unknown as PageStatsTensors, request.axes as PageStatsAxes, request.variant);
    return tensors;
  };

/** Keys of the first two tokens: an infinity in one component, a NaN in another; of i8 in all of a token. */
const notFinite = changed(keysOf(full), ({ keyPages: pages, keyScale, pageTable }, { kvHeads, pageSize, headDim }, { keyPages: dtype }) => {
  const keyPages = pages as Float32Array | Uint16Array;
  const slot = (pageTable[0] as number) * kvHeads * pageSize;
  if (keyScale) keyScale[slot + 1] = Number.POSITIVE_INFINITY;
  else if (dtype === "f32") keyPages.set([Number.NEGATIVE_INFINITY, Number.NaN], slot * headDim);
  else keyPages.set(dtype === "f16" ? [0xfc00, 0x7e00] : [0xff80, 0x7fc0], slot * headDim);
});

const tried: Case[] = [
  { name: "heads of 64", axes: sizes(64, [16, 3]), inputs: keysOf(ragged), seeds: 1 },
  { name: "heads of 128, added to", axes: sizes(128, [8, 4], { kvHeads: 1 }), inputs: keysOf(ragged, someTokensBefore) },
  {
    name: "heads of 20, four granules a page",
    axes: sizes(20, [8, 5], { granularity: 2, kvHeads: 3 }),
    inputs: keysOf(ragged, someTokensBefore),
  },
  { name: "heads of 7", axes: sizes(7, [5, 4]), inputs: keysOf(ragged, someTokensBefore), seeds: 1 },
  { name: "one component", axes: sizes(1, [4, 6]), inputs: keysOf(ragged), seeds: 1 },
  { name: "one token a granule", axes: sizes(33, [6, 3], { granularity: 1 }), inputs: keysOf(ragged, someTokensBefore), seeds: 1 },
  { name: "one piece, granules of 16", axes: sizes(24, [80, 1], { granularity: 16 }), inputs: keysOf(of(80, 37)), seeds: 1 },
  { name: "granules of 100", axes: sizes(16, [100, 2]), inputs: keysOf(of(200, 130), () => 101), seeds: 1 },
  { name: "nothing added", axes: sizes(16, [4, 3]), inputs: keysOf(of(8, 12), (length) => length), seeds: 1 },
  { name: "cut short", axes: sizes(16, [4, 3]), inputs: keysOf(of(6, 3), () => 7), seeds: 1 },
  { name: "keys that are not finite", axes: sizes(12, [4, 3]), inputs: notFinite, seeds: 1 },
  { name: "empty sequences", axes: sizes(16, [4, 3]), inputs: keysOf(of(0)), variants: dealt(0), seeds: 1 },
  { name: "no sequences", axes: sizes(16, [4, 3], { batch: 0 }), inputs: keysOf(ragged), variants: dealt(1), seeds: 1 },
  {
    name: "fewer sequences at run time",
    axes: sizes(16, [4, 3], { batch: 3 }),
    live: { batch: 2 },
    inputs: keysOf(full),
    variants: dealt(2),
    seeds: 1,
  },
  {
    name: "pages that do not exist",
    axes: sizes(16, [4, 3]),
    inputs: changed(keysOf(full), ({ pageTable }, { pages, maxPages }) => {
      pageTable[1] = pages;
      pageTable[2 * maxPages - 1] = -3;
    }),
    variants: dealt(3),
    seeds: 1,
  },
  {
    name: "lengths out of range",
    axes: sizes(16, [4, 3], { batch: 3 }),
    inputs: changed(keysOf(full), ({ lengths }) => lengths.set([13, 12, -1])),
    variants: dealt(0),
    seeds: 1,
  },
  {
    name: "kept tokens out of range",
    axes: sizes(16, [4, 3], { batch: 3 }),
    inputs: changed(keysOf(full), ({ from }) => from.set([-2, 0, 13])),
    variants: dealt(1),
    seeds: 1,
  },
];

/** What all variants have in common is tried with some. */
function dealt(n: number) {
  return (_: AnyVariant, i: number): boolean => i % 4 === n;
}

const tensorsOf = (call: ReferenceCall): PageStatsTensors => call.tensors as PageStatsTensors;

/** A deviation of n tokens as one of n - 1. */
const ofSample: Mutant = {
  name: "the deviation of a sample",
  variants: ({ statistics }) => statistics === "meanstd",
  run: (call, op) => sampled(call, op.reference),
  blind: (evidence) =>
    shows(evidence, (call) => sampled(call, evidence.op.reference)) ? undefined : "no granule that is made has two tokens",
};
function sampled(call: ReferenceCall, reference: (call: ReferenceCall) => void): void {
  const { batch, kvHeads, headDim, pageSize, maxPages, pages, granularity } = call.axes as PageStatsAxes;
  const { lengths, from, pageTable, pageStats } = tensorsOf(call);
  reference(call);
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    for (let g = Math.floor((from[b] as number) / granularity); g >= 0 && g * granularity < length && length <= maxPages * pageSize; g++) {
      const page = pageTable[b * maxPages + Math.floor((g * granularity) / pageSize)] as number;
      const count = Math.min(granularity, length - g * granularity);
      for (let head = 0; head < kvHeads && page >= 0 && page < pages && count > 1; head++) {
        const row = ((page * kvHeads + head) * pageSize + ((g * granularity) % pageSize)) / granularity;
        for (let i = (2 * row + 1) * headDim; i < (2 * row + 2) * headDim; i++)
          pageStats[i] = (pageStats[i] as number) * Math.sqrt(count / (count - 1));
      }
    }
  }
}

export const cases: OpCases = {
  cases: tried,
  mutants: [
    changing("the last token dropped", "granules that are made lose none, or do not depend on it", (call) =>
      withTensors(call, { lengths: tensorsOf(call).lengths.map((length) => Math.max(0, length - 1)) }),
    ),
    changing("everything made anew", "nothing was to be left, or it is the same", (call) =>
      withTensors(call, { from: tensorsOf(call).from.map((from) => Math.min(0, from)) }),
    ),
    changing("the granule that was begun is left", "no sequence was in the middle of a granule", (call) => {
      const { granularity } = call.axes as PageStatsAxes;
      return withTensors(call, { from: tensorsOf(call).from.map((from) => Math.ceil(from / granularity) * granularity) });
    }),
    changing("page table ignored", "nothing is made, or the pages lie in order", (call) => {
      const { batch, pages, maxPages } = call.axes as PageStatsAxes;
      return withTensors(call, { pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => i % pages) });
    }),
    {
      ...changing("the other statistics", "nothing is made, or both are the same", (call) => ({
        ...call,
        variant: { ...call.variant, statistics: call.variant.statistics === "minmax" ? "meanstd" : "minmax" },
      })),
    },
    {
      ...changing("key scales ignored", "nothing is made", (call) => withTensors(call, { keyScale: undefined })),
      variants: ({ keyPages }) => keyPages === "i8",
    },
    ofSample,
  ],
  laws: [
    {
      name: "token by token gives the bits of all at once",
      axes: sizes(18, [6, 4], { granularity: 3 }),
      async check(run, request) {
        const most = [24, 17];
        const given = keysOf(of(...most))(request) as unknown as PageStatsTensors;
        const once = (await run(request.axes, request.variant, given as unknown as Tensors)).pageStats as Float32Array;
        let pageStats = given.pageStats;
        let from = [0, 0];
        for (let length = 1; length <= 24; length += length % 3 === 1 ? 1 : 4) {
          const lengths = most.map((all) => (length > 20 ? all : Math.min(length, all)));
          const step = { ...given, pageStats, lengths: Int32Array.from(lengths), from: Int32Array.from(from) };
          pageStats = (await run(request.axes, request.variant, step as unknown as Tensors)).pageStats as Float32Array;
          from = lengths;
        }
        const at = once.findIndex((value, i) => !Object.is(value, pageStats[i]));
        return at < 0 ? undefined : `pageStats[${at}] is ${pageStats[at]} after many calls and ${once[at]} after one`;
      },
    },
    {
      name: "of one token, the statistics are its key",
      axes: sizes(21, [4, 3], { granularity: 1 }),
      variants: ({ keyPages }) => keyPages === "f32",
      async check(run, request) {
        const given = keysOf(full)(request) as unknown as PageStatsTensors;
        const { pageStats } = (await run(request.axes, request.variant, given as unknown as Tensors)) as unknown as PageStatsTensors;
        const { batch, maxPages, kvHeads, pageSize, headDim } = request.axes as PageStatsAxes;
        for (let entry = 0; entry < batch * maxPages; entry++)
          for (let slot = 0; slot < kvHeads * pageSize; slot++) {
            const row = (given.pageTable[entry] as number) * kvHeads * pageSize + slot;
            for (let i = 0; i < headDim; i++) {
              const key = given.keyPages[row * headDim + i] as number;
              const [first, second] = [pageStats[2 * row * headDim + i], pageStats[(2 * row + 1) * headDim + i]];
              if (first !== key || second !== (request.variant.statistics === "minmax" ? key : 0))
                return `a key of ${key} has ${first} and ${second}`;
            }
          }
        return undefined;
      },
    },
  ],
  bench: [
    {
      name: "16384 tokens, 8 heads x 128",
      calibrate: true,
      axes: sizes(128, [16, 1024], { batch: 1, kvHeads: 8, pages: 1024 }),
      variants: [
        { statistics: "meanstd", keyPages: "f32" },
        { statistics: "meanstd", keyPages: "f16" },
        { statistics: "minmax", keyPages: "f16" },
      ],
      inputs: benchKeys(0),
    },
    {
      name: "one more token at 16384, 8 heads x 128",
      axes: sizes(128, [16, 1024], { batch: 1, kvHeads: 8, pages: 1024 }),
      variants: [{ statistics: "meanstd", keyPages: "f16" }],
      inputs: benchKeys(16383),
    },
  ],
};

function benchKeys(from: number): Case["inputs"] {
  return (request) => {
    const axes = request.axes as PageStatsAxes;
    const { keyPages, keyScale, pageTable, lengths } = benchCache({ ...request, axes: asDecode(axes) }) as Record<string, Int32Array>;
    return {
      keyPages: keyPages as Int32Array,
      ...(keyScale ? { keyScale } : {}),
      pageTable: pageTable as Int32Array,
      lengths: lengths as Int32Array,
      from: new Int32Array(axes.batch).fill(from),
      pageStats: new Float32Array(statsLength(axes)),
    };
  };
}
