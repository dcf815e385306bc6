import type { AnyVariant } from "../../op/define.js";
import type { BenchCase, Case, OpCases } from "../../testing/case.js";
import type { Random } from "../../testing/random.js";
import { biasMutants } from "./bias-mutants.js";
import { benchCache, cache, full, of, ragged } from "./inputs.js";
import { biasLaws, laws } from "./laws.js";
import { mutants } from "./mutants.js";
import type { DecodeAxes, DecodeTensors } from "./reference.js";

/** The same with some tensors changed. */
const changed =
  (inputs: Case["inputs"], change: (tensors: DecodeTensors, axes: DecodeAxes, random: Random) => void): Case["inputs"] =>
  (request) => {
    const tensors = inputs(request);
    change(tensors as unknown as DecodeTensors, request.axes as DecodeAxes, request.random);
    return tensors;
  };

/** Sequence after sequence: a NaN and an infinity in a query, keys that make logits -Inf, values of infinity. */
export const special = changed(cache(full), (tensors, axes) => {
  const { queryHeads, headDim, maxPages, kvHeads, pageSize, valueDim } = axes;
  const { queries, keyPages, valuePages, pageTable } = tensors;
  queries[0] = Number.NaN;
  queries.fill(Number.POSITIVE_INFINITY, queryHeads * headDim, queryHeads * headDim + 1);
  const slot = (b: number, t: number): number =>
    (pageTable[b * maxPages + Math.floor(t / pageSize)] as number) * kvHeads * pageSize + (t % pageSize);
  // Components 0 of a head's query are 1, of these keys -Inf: their logits are -Inf, the last one's included.
  for (let h = 0; h < queryHeads; h++) {
    queries[(2 * queryHeads + h) * headDim] = 1;
    queries[(3 * queryHeads + h) * headDim] = 1;
  }
  const last = maxPages * pageSize - 1;
  for (const t of [0, last]) keyPages[slot(2, t) * headDim] = Number.NEGATIVE_INFINITY;
  for (let t = 0; t <= last; t++) keyPages[slot(3, t) * headDim] = Number.NEGATIVE_INFINITY;
  valuePages[slot(4, 1) * valueDim] = Number.POSITIVE_INFINITY;
});

export const badTable = changed(cache(full), ({ pageTable }, { pages, batch, maxPages }) => {
  pageTable[1] = pages;
  if (batch > 1) pageTable[2 * maxPages - 1] = -7;
});
export const badLengths = changed(cache(ragged), ({ lengths }, { batch, maxPages, pageSize }) => {
  lengths[0] = maxPages * pageSize + 1;
  if (batch > 1) lengths[batch - 1] = -1;
});

export interface Heads {
  batch?: number;
  masks?: number;
  heads?: [query: number, kv: number];
  dim?: number | [key: number, value: number];
  page?: [size: number, most: number];
  spare?: number;
}
export function sizes({
  batch = 2,
  heads: [queryHeads, kvHeads] = [4, 2],
  dim = 64,
  page: [pageSize, maxPages] = [16, 5],
  spare = 3,
  masks = 1,
}: Heads): DecodeAxes {
  const [headDim, valueDim] = typeof dim === "number" ? [dim, dim] : dim;
  return { batch, queryHeads, kvHeads, headDim, valueDim, pages: batch * maxPages + spare, pageSize, maxPages, maskHeads: masks };
}

const isF32 = ({ keyPages }: AnyVariant): boolean => keyPages === "f32";
const plain = ({ sinks }: AnyVariant): boolean => sinks === false;

/** Without slopes and masks. */
export const unbiased = ({ slopes, mask }: AnyVariant): boolean => !slopes && !mask;
export const biased = (variant: AnyVariant): boolean => !unbiased(variant);
/** What has nothing to do with biases is tried without them. */
export const withoutBiases = (tests: readonly Case[]): Case[] =>
  tests.map((test) => ({ ...test, variants: (variant, i) => unbiased(variant) && (test.variants?.(variant, i) ?? true) }));

/** A mask that hides every token from the first head of the first sequence, and from all heads of the last one. */
export const hidden = changed(cache(ragged), (tensors, { batch, maskHeads }) => {
  const mask = tensors.mask as Float32Array | Uint32Array;
  const row = mask.length / batch / maskHeads;
  const nothing = mask instanceof Float32Array ? Number.NEGATIVE_INFINITY : 0;
  mask.fill(nothing, 0, row);
  mask.fill(nothing, (batch - 1) * maskHeads * row);
});
/** One cache dtype with these biases. */
export const only =
  (keyPages: string, slopes: boolean, ...masks: unknown[]) =>
  (variant: AnyVariant): boolean =>
    variant.keyPages === keyPages && variant.slopes === slopes && masks.includes(variant.mask);

/** Slopes and masks. */
const biases: Case[] = [
  {
    name: "every bias",
    axes: sizes({ heads: [6, 2], dim: [20, 12], page: [7, 9], masks: 6 }),
    scalars: { window: 40, softCap: 5, scale: 0.3 },
    variants: biased,
    inputs: cache(ragged),
    seeds: 1,
  },
  {
    name: "one mask for all heads, over several chunks",
    axes: sizes({ batch: 2, heads: [2, 1], dim: 16, page: [64, 20] }),
    variants: (v) => only("f16", true, "bits", "f32")(v) && plain(v),
    inputs: cache(of(1277, 1033)),
    seeds: 1,
  },
  {
    name: "wide groups with slopes and masks",
    axes: sizes({ heads: [14, 2], dim: 32, page: [8, 6], masks: 14 }),
    variants: (v) => only("i8", true, false, "bits")(v) || only("f32", true, "f32")(v),
    inputs: cache(ragged),
    seeds: 1,
  },
  {
    name: "heads that see nothing",
    axes: sizes({ batch: 3, dim: 16, page: [8, 9], masks: 4 }),
    variants: only("f32", false, "bits", "f32"),
    inputs: hidden,
    seeds: 1,
  },
  {
    name: "fewer masked sequences at run time",
    axes: sizes({ batch: 4, dim: 8, masks: 4 }),
    live: { batch: 3 },
    variants: only("bf16", true, "bits", "f32"),
    inputs: cache(ragged),
    seeds: 1,
  },
];

export const cases: OpCases = {
  cases: [...withoutBiases(plainCases()), ...biases],
  mutants: [...mutants, ...biasMutants],
  laws: [...laws, ...biasLaws],
  bench: [
    bench("32/8 heads x 128, 4096 tokens", 1, 4096, true),
    bench("32/8 heads x 128, 16384 tokens", 1, 16384, false),
    bench("batch 8, 32/8 heads x 128, 1024 tokens", 8, 1024, false),
  ],
};

function plainCases(): Case[] {
  return [
    ...[64, 80, 96, 128, 256].map((dim) => ({ name: `heads of ${dim}`, axes: sizes({ dim }), inputs: cache(ragged) })),
    ...[1, 2, 7, 13, 20, 33, 100].map((dim) => ({
      name: `heads of ${dim}`,
      axes: sizes({ dim, page: [5, 4] }),
      inputs: cache(ragged),
      seeds: 1,
    })),
    { name: "values wider than keys", axes: sizes({ dim: [24, 40] }), inputs: cache(ragged) },
    { name: "keys wider than values", axes: sizes({ dim: [72, 18] }), inputs: cache(ragged) },
    ...(
      [
        [1, 1],
        [3, 3],
        [6, 2],
        [8, 2],
        [5, 1],
        [14, 2],
      ] as const
    ).map(([query, kv]) => ({
      name: `${query} query heads, ${kv} KV heads`,
      axes: sizes({ heads: [query, kv], dim: 32, page: [8, 4] }),
      inputs: cache(ragged),
    })),
    ...[1, 3, 16, 64, 77].map((size) => ({
      name: `pages of ${size}`,
      axes: sizes({ dim: 32, page: [size, Math.ceil(130 / size)] }),
      inputs: cache(ragged),
    })),
    { name: "one page a sequence", axes: sizes({ dim: 48, page: [150, 1], spare: 0 }), inputs: cache(of(150, 31)) },
    {
      name: "lengths around a tile",
      axes: sizes({ batch: 9, dim: 16, page: [16, 9] }),
      inputs: cache(of(1, 31, 32, 33, 63, 64, 65, 127, 129)),
    },
    { name: "lengths around a page", axes: sizes({ batch: 5, dim: 16, page: [4, 3] }), inputs: cache(of(0, 3, 4, 5, 12)) },
    { name: "a long context", axes: sizes({ batch: 1, heads: [2, 1], dim: 16, page: [64, 43] }), inputs: cache(of(2749)), seeds: 1 },
    { name: "empty sequences", axes: sizes({ batch: 3, dim: 16 }), inputs: cache(of(0)), seeds: 1 },
    { name: "no sequences", axes: sizes({ batch: 0, dim: 16 }), inputs: cache(full), seeds: 1 },
    { name: "fewer sequences at run time", axes: sizes({ batch: 4, dim: 32 }), live: { batch: 3 }, inputs: cache(ragged) },
    { name: "a window", axes: sizes({ dim: 32, page: [8, 9] }), scalars: { window: 21 }, inputs: cache(ragged) },
    { name: "a window of one", axes: sizes({ dim: 32, page: [8, 4] }), scalars: { window: 1 }, inputs: cache(ragged), seeds: 1 },
    {
      name: "a window beyond the context",
      axes: sizes({ dim: 32, page: [8, 4] }),
      scalars: { window: 5000 },
      inputs: cache(ragged),
      seeds: 1,
    },
    { name: "soft cap", axes: sizes({ dim: 64, page: [8, 5] }), scalars: { softCap: 2.5 }, inputs: cache(ragged, 2) },
    { name: "a wide soft cap", axes: sizes({ dim: 64, page: [8, 5] }), scalars: { softCap: 50 }, inputs: cache(ragged, 2) },
    { name: "another scale", axes: sizes({ dim: 24, page: [8, 5] }), scalars: { scale: -0.7 }, inputs: cache(ragged) },
    { name: "scale of 0", axes: sizes({ dim: 24, page: [8, 5] }), scalars: { scale: 0 }, inputs: cache(ragged), seeds: 1 },
    { name: "one token outweighs all", axes: sizes({ dim: 64, page: [8, 6] }), inputs: cache(ragged, 40) },
    {
      name: "everything at once",
      axes: sizes({ heads: [6, 2], dim: [40, 56], page: [7, 9] }),
      scalars: { window: 40, softCap: 5, scale: 0.3 },
      inputs: cache(ragged),
    },
    {
      name: "special values",
      axes: sizes({ batch: 5, heads: [2, 1], dim: 8, page: [4, 3] }),
      variants: (v) => isF32(v) && plain(v),
      inputs: special,
    },
    {
      name: "special values in keys that fill no vector",
      axes: sizes({ batch: 5, heads: [2, 1], dim: 13, page: [4, 3] }),
      variants: (v) => isF32(v) && plain(v),
      inputs: special,
    },
    { name: "pages that do not exist", axes: sizes({ dim: 16 }), inputs: badTable, seeds: 1 },
    { name: "lengths out of range", axes: sizes({ batch: 3, dim: 16 }), inputs: badLengths, seeds: 1 },
  ];
}

function bench(name: string, batch: number, tokens: number, calibrate: boolean): BenchCase {
  const axes = {
    batch,
    queryHeads: 32,
    kvHeads: 8,
    headDim: 128,
    valueDim: 128,
    pages: (batch * tokens) / 16,
    pageSize: 16,
    maxPages: tokens / 16,
    maskHeads: 1,
  };
  return {
    name,
    axes,
    calibrate,
    variants: (["f32", "f16", "bf16", "i8"] as const).map((keyPages) => ({ keyPages, sinks: false, slopes: false, mask: false })),
    inputs: benchCache,
    // One sequence and one KV head's queries; the pages of the others are not read.
    sample: (whole, inputs) => {
      const { queryHeads, headDim, valueDim, maxPages } = whole as DecodeAxes;
      const { queries, pageTable, lengths } = inputs as unknown as DecodeTensors;
      return {
        axes: { ...whole, batch: 1 },
        inputs: {
          ...inputs,
          queries: queries.slice(0, queryHeads * headDim),
          pageTable: pageTable.slice(0, maxPages),
          lengths: lengths.slice(0, 1),
        },
        pick: ({ out, lse }) => ({
          out: (out as Float32Array).subarray(0, queryHeads * valueDim),
          lse: (lse as Float32Array).subarray(0, queryHeads),
        }),
      };
    },
  };
}
