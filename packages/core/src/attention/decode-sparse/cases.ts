import type { AnyVariant, ReferenceCall } from "../../op/define.js";
import type { Case, OpCases } from "../../testing/case.js";
import { biasMutants } from "../decode/bias-mutants.js";
import { biased, cases as decodeCases, only, sizes, withoutBiases } from "../decode/cases.js";
import { of, ragged } from "../decode/inputs.js";
import { changing, mutants, withTensors } from "../decode/mutants.js";
import { all, listed, none, some, turned } from "./inputs.js";
import { laws } from "./laws.js";
import { listedTokens, type SparseAxes, type SparseTensors } from "./reference.js";

/** Sizes of lists beside those of a cache; `k` may be left to hold every granule. */
const lists = (cache: ReturnType<typeof sizes>, { granularity = 16, lists: count = 2, k }: Partial<SparseAxes> = {}): SparseAxes => ({
  ...cache,
  granularity,
  lists: count,
  k: k ?? Math.ceil((cache.maxPages * cache.pageSize) / granularity),
});

const plain = ({ sinks }: AnyVariant): boolean => sinks === false;
/** What all variants have in common is tried with one dtype, without sinks. */
const dtypes = ["f32", "f16", "bf16", "i8"];
const aFew =
  (n: number) =>
  ({ sinks, keyPages }: AnyVariant): boolean =>
    sinks === false && keyPages === dtypes[n % 4];

const badEntries: Case["inputs"] = (request) => {
  const tensors = listed(ragged, some)(request);
  const { selected, lengths } = tensors as unknown as SparseTensors;
  const { k, lists: count, granularity } = request.axes as SparseAxes;
  selected[1] = 1 << 30;
  selected[k * count - 1] = -2;
  selected[k * count] = Math.ceil((lengths[1] as number) / granularity);
  return tensors;
};
const badTable: Case["inputs"] = (request) => {
  const tensors = listed(ragged, all)(request);
  (tensors as unknown as SparseTensors).pageTable[1] = -5;
  return tensors;
};
const badLengths: Case["inputs"] = (request) => {
  const tensors = listed(ragged, some)(request);
  (tensors as unknown as SparseTensors).lengths[0] = -3;
  return tensors;
};

const plainCases: Case[] = [
  ...[1, 5, 16, 32, 64, 128].map((granularity, n) => ({
    name: `granules of ${granularity}`,
    axes: lists(sizes({ dim: 32, page: [16, 9] }), { granularity }),
    inputs: listed(ragged, some),
    variants: aFew(n),
    seeds: 1,
  })),
  { name: "one list", axes: lists(sizes({ dim: 64 }), { lists: 1 }), variants: aFew(0), inputs: listed(ragged, some) },
  {
    name: "a list per KV head",
    axes: lists(sizes({ heads: [6, 3], dim: 24 }), { lists: 3, granularity: 4 }),
    inputs: listed(ragged, some),
  },
  {
    name: "a list per query head",
    axes: lists(sizes({ heads: [6, 2], dim: 32, page: [8, 12] }), { lists: 6, granularity: 3 }),
    inputs: listed(ragged, some),
  },
  {
    name: "a list per query head, wide groups",
    axes: lists(sizes({ heads: [10, 2], dim: 20, page: [8, 6] }), { lists: 10, granularity: 4 }),
    variants: aFew(1),
    inputs: listed(ragged, some),
    seeds: 1,
  },
  {
    name: "wide groups",
    axes: lists(sizes({ heads: [14, 2], dim: 32 }), { granularity: 8 }),
    variants: aFew(2),
    inputs: listed(ragged, some),
    seeds: 1,
  },
  {
    name: "one head",
    axes: lists(sizes({ heads: [1, 1], dim: 13 }), { lists: 1, granularity: 2 }),
    variants: aFew(3),
    inputs: listed(ragged, some),
  },
  { name: "everything", axes: lists(sizes({ dim: 32, page: [7, 9] })), variants: aFew(0), inputs: listed(ragged, all), seeds: 1 },
  {
    name: "values wider than keys",
    axes: lists(sizes({ dim: [24, 40] }), { granularity: 8 }),
    variants: aFew(1),
    inputs: listed(ragged, some),
    seeds: 1,
  },
  { name: "lists in another order", axes: lists(sizes({ dim: 16, page: [8, 10] }), { granularity: 4 }), inputs: listed(ragged, turned) },
  {
    name: "granules across pages",
    axes: lists(sizes({ dim: 16, page: [5, 20] }), { granularity: 16 }),
    variants: aFew(2),
    inputs: listed(ragged, some),
    seeds: 1,
  },
  {
    name: "pages of one token",
    axes: lists(sizes({ dim: 16, page: [1, 70] }), { granularity: 1, k: 30 }),
    variants: aFew(3),
    inputs: listed(ragged, some),
    seeds: 1,
  },
  {
    name: "more tokens than a chunk",
    axes: lists(sizes({ batch: 1, heads: [2, 1], dim: 16, page: [64, 30] }), { granularity: 1, lists: 1, k: 1300 }),
    inputs: listed(of(1900), some),
    variants: plain,
    seeds: 1,
  },
  { name: "empty lists", axes: lists(sizes({ dim: 16 })), variants: aFew(1), inputs: listed(ragged, none), seeds: 1 },
  { name: "empty sequences", axes: lists(sizes({ batch: 3, dim: 16 })), variants: aFew(2), inputs: listed(of(0), some), seeds: 1 },
  { name: "no sequences", axes: lists(sizes({ batch: 0, dim: 16 })), variants: aFew(3), inputs: listed(ragged, some), seeds: 1 },
  {
    name: "fewer sequences at run time",
    axes: lists(sizes({ batch: 4, dim: 32 })),
    live: { batch: 3 },
    variants: aFew(0),
    inputs: listed(ragged, some),
    seeds: 1,
  },
  {
    name: "a window",
    axes: lists(sizes({ dim: 32, page: [8, 9] }), { granularity: 16 }),
    scalars: { window: 37 },
    inputs: listed(ragged, all),
  },
  {
    name: "everything at once",
    axes: lists(sizes({ heads: [6, 2], dim: [40, 56], page: [7, 9] }), { granularity: 4, lists: 6 }),
    scalars: { window: 40, softCap: 5, scale: 0.3 },
    inputs: listed(ragged, some),
    seeds: 1,
  },
  { name: "granules that do not exist", axes: lists(sizes({ batch: 3, dim: 16 }), { granularity: 8 }), inputs: badEntries, seeds: 1 },
  { name: "pages that do not exist", axes: lists(sizes({ dim: 16 })), inputs: badTable, variants: plain, seeds: 1 },
  { name: "lengths out of range", axes: lists(sizes({ batch: 3, dim: 16 })), inputs: badLengths, variants: plain, seeds: 1 },
];

/** Slopes and masks: by a token's place in its sequence. */
const biases: Case[] = [
  {
    name: "every bias",
    axes: lists(sizes({ batch: 3, heads: [6, 2], dim: [20, 12], page: [7, 9], masks: 6 }), { granularity: 4, lists: 6 }),
    scalars: { window: 40, softCap: 5, scale: 0.3 },
    variants: biased,
    inputs: listed(of(63, 37, 61), some),
    seeds: 1,
  },
  {
    name: "biases, lists in another order",
    axes: lists(sizes({ heads: [6, 2], dim: 16, page: [8, 10] }), { granularity: 4, lists: 2 }),
    variants: (v) => only("f16", true, "bits", "f32")(v) && plain(v),
    inputs: listed(ragged, turned),
    seeds: 1,
  },
  {
    name: "biases of single tokens, over several chunks",
    axes: lists(sizes({ batch: 1, heads: [2, 1], dim: 16, page: [64, 30] }), { granularity: 1, lists: 1, k: 1300 }),
    variants: (v) => only("i8", true, "bits")(v) && plain(v),
    inputs: listed(of(1900), some),
    seeds: 1,
  },
];

export const cases: OpCases = {
  cases: [...withoutBiases(plainCases), ...biases],
  mutants: [
    ...mutants,
    ...biasMutants,
    {
      ...changing("mask by the place in the list", "nothing is listed, or the places are the tokens", maskedByPlace),
      variants: ({ mask }) => mask !== false,
    },
    changing("the first list for every head", "there is one list, or none that differs", (call) => {
      const { batch, lists: count, k } = call.axes as SparseAxes;
      const selected = selectedOf(call).slice();
      for (let b = 0; b < batch; b++)
        for (let list = 1; list < count; list++) selected.copyWithin((b * count + list) * k, b * count * k, (b * count + 1) * k);
      return withTensors(call, { selected });
    }),
    changing("lists ignored", "everything is listed, or nothing else weighs anything", (call) => {
      const { batch, lists: count, k, granularity } = call.axes as SparseAxes;
      const { lengths } = call.tensors as SparseTensors;
      const held = (row: number): number => Math.ceil((lengths[Math.floor(row / count)] as number) / granularity);
      return withTensors(call, {
        selected: Int32Array.from({ length: batch * count * k }, (_, i) => (i % k < held(Math.floor(i / k)) ? i % k : -1)),
      });
    }),
    changing("no entry taken for granule 0", "every entry is one", (call) =>
      withTensors(call, { selected: selectedOf(call).map((granule) => (granule === -1 ? 0 : granule)) }),
    ),
    changing("the last entry dropped", "it weighs less than the roundings allowed", (call) => {
      const { k } = call.axes as SparseAxes;
      const selected = selectedOf(call).slice();
      for (let row = 0; row < selected.length; row += k) {
        let last = row + k - 1;
        while (last > row && selected[last] === -1) last--;
        selected[last] = -1;
      }
      return withTensors(call, { selected });
    }),
  ],
  laws,
  bench: [
    ...decodeCases.bench.slice(0, 2).map(({ sample: _, ...bench }) => ({
      ...bench,
      name: `${bench.name}, 64 granules of 16`,
      axes: { ...bench.axes, granularity: 16, lists: 8, k: 64 },
      inputs: listed(undefined, some),
    })),
  ],
};

/** The entry of a token's place in its list, for each head as a mask of its own. */
function maskedByPlace(call: ReferenceCall): ReferenceCall {
  const { batch, queryHeads, maskHeads, maxPages, pageSize, lists: count } = call.axes as SparseAxes;
  const given = (call.tensors as SparseTensors).mask as Float32Array | Uint32Array;
  const tokens = maxPages * pageSize;
  const width = given.length / batch / maskHeads;
  const mask = new Float32Array(batch * queryHeads * tokens);
  const all = listedTokens({ ...call, fail() {} });
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < queryHeads; h++) {
      const row = (b * maskHeads + (maskHeads === 1 ? 0 : h)) * width;
      for (const [i, t] of (all[b * count + Math.floor((h * count) / queryHeads)]?.tokens ?? []).entries()) {
        const place = Math.min(i, tokens - 1);
        const value =
          given instanceof Float32Array
            ? (given[row + place] as number)
            : ((given[row + (place >> 5)] as number) >>> (place & 31)) & 1
              ? 0
              : Number.NEGATIVE_INFINITY;
        mask[(b * queryHeads + h) * tokens + t] = value;
      }
    }
  return {
    ...withTensors(call, { mask }),
    axes: { ...call.axes, maskHeads: queryHeads },
    variant: { ...call.variant, mask: "f32" },
  };
}

const selectedOf = (call: ReferenceCall): Int32Array => (call.tensors as SparseTensors).selected;
