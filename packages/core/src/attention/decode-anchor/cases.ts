import type { AnyVariant, ReferenceCall } from "../../op/define.js";
import type { Case, Law, Mutant, OpCases } from "../../testing/case.js";
import { biasMutants } from "../decode/bias-mutants.js";
import { badLengths, badTable, biased, cases as decodeCases, hidden, only, sizes, special, withoutBiases } from "../decode/cases.js";
import { cache, of, ragged } from "../decode/inputs.js";
import { mutants, shows, withTensors } from "../decode/mutants.js";
import type { DecodeAxes } from "../decode/reference.js";
import { decode } from "../decode/spec.js";
import type { AnchorAxes, AnchorTensors } from "./reference.js";

const weighed = (cached: DecodeAxes, granularity = 16): AnchorAxes => ({ ...cached, granularity });
const plain = ({ sinks }: AnyVariant): boolean => sinks === false;
/** What all variants have in common is tried with one dtype, without sinks. */
const dtypes = ["f32", "f16", "bf16", "i8"];
const aFew =
  (n: number) =>
  ({ sinks, keyPages }: AnyVariant): boolean =>
    sinks === false && keyPages === dtypes[n % 4];
const isF32 = ({ keyPages }: AnyVariant): boolean => keyPages === "f32";

const granulesOf = ({ maxPages, pageSize, granularity }: AnchorAxes): number => Math.ceil((maxPages * pageSize) / granularity);

const lawAxes: AnchorAxes = weighed({
  batch: 2,
  queryHeads: 6,
  kvHeads: 2,
  headDim: 32,
  valueDim: 24,
  pages: 150,
  pageSize: 16,
  maxPages: 70,
  maskHeads: 6,
});
const dense: Law = {
  name: "out and lse have the bits of attention/decode",
  axes: lawAxes,
  hostOnly: true,
  variants: (v) => plain(v) && v.slopes === (v.mask !== false),
  async check(run, request, other) {
    const { granularity: _, ...cached } = lawAxes;
    for (const scalars of [{}, { window: 700, softCap: 4 }]) {
      const given = cache(() => [1101, 90])(request);
      const whole = await other(decode)(cached, request.variant, given, scalars);
      for (const granularity of [1, 50]) {
        const anchor = await run({ ...lawAxes, granularity }, request.variant, given, scalars);
        for (const name of ["out", "lse"]) {
          const at = (whole[name] as Float32Array).findIndex((value, i) => !Object.is(value, anchor[name]?.[i]));
          if (at >= 0)
            return `granules of ${granularity}: ${name}[${at}] is ${anchor[name]?.[at]}, in attention/decode ${whole[name]?.[at]}`;
        }
      }
    }
    return undefined;
  },
};

const cached: Case[] = [
  ...[1, 3, 16, 64, 100].map((granularity, n) => ({
    name: `granules of ${granularity}`,
    axes: weighed(sizes({ dim: 32, page: [16, 9] }), granularity),
    inputs: cache(ragged),
    variants: (v: AnyVariant) => granularity === 16 || aFew(n)(v),
    seeds: 1,
  })),
  ...[7, 64, 80].map((dim, n) => ({
    name: `heads of ${dim}`,
    axes: weighed(sizes({ dim, page: [5, 9] }), 4),
    inputs: cache(ragged),
    variants: aFew(n + 1),
    seeds: 1,
  })),
  ...(
    [
      [1, 1],
      [6, 2],
      [5, 1],
      [14, 2],
    ] as const
  ).map(([query, kv], n) => ({
    name: `${query} query heads, ${kv} KV heads`,
    axes: weighed(sizes({ heads: [query, kv], dim: 32, page: [8, 7] }), 8),
    variants: (v: AnyVariant) => query === 6 || aFew(n)(v),
    inputs: cache(ragged),
    seeds: 1,
  })),
  { name: "values wider than keys", axes: weighed(sizes({ dim: [24, 40] })), variants: aFew(1), inputs: cache(ragged), seeds: 1 },
  {
    name: "one page a sequence",
    axes: weighed(sizes({ dim: 16, page: [600, 1], spare: 0 })),
    variants: aFew(2),
    inputs: cache(of(600, 257)),
    seeds: 1,
  },
  {
    name: "a long context",
    axes: weighed(sizes({ batch: 1, heads: [2, 1], dim: 16, page: [64, 30] }), 16),
    inputs: cache(of(1901), 3),
    variants: plain,
    seeds: 1,
  },
  {
    name: "one granule for all",
    axes: weighed(sizes({ batch: 1, dim: 8, page: [16, 80] }), 4096),
    inputs: cache(of(1279)),
    variants: plain,
    seeds: 1,
  },
  { name: "empty sequences", axes: weighed(sizes({ batch: 3, dim: 16 })), variants: aFew(2), inputs: cache(of(0)), seeds: 1 },
  { name: "no sequences", axes: weighed(sizes({ batch: 0, dim: 16 })), variants: aFew(3), inputs: cache(ragged), seeds: 1 },
  {
    name: "fewer sequences at run time",
    axes: weighed(sizes({ batch: 4, dim: 32 })),
    live: { batch: 3 },

    inputs: cache(ragged),
    seeds: 1,
  },
  { name: "a window", axes: weighed(sizes({ dim: 32, page: [8, 9] })), scalars: { window: 21 }, inputs: cache(ragged) },
  {
    name: "a window over several chunks",
    axes: weighed(sizes({ batch: 1, heads: [2, 1], dim: 8, page: [16, 100] }), 64),
    scalars: { window: 1333 },
    inputs: cache(of(1570)),
    variants: plain,
    seeds: 1,
  },
  {
    name: "one token outweighs all",
    axes: weighed(sizes({ dim: 64, page: [8, 6] }), 8),
    variants: aFew(3),
    inputs: cache(ragged, 40),
    seeds: 1,
  },
  {
    name: "everything at once",
    axes: weighed(sizes({ heads: [6, 2], dim: [40, 56], page: [7, 9] }), 4),
    scalars: { window: 40, softCap: 5, scale: 0.3 },
    inputs: cache(ragged),
  },
  {
    name: "special values",
    axes: weighed(sizes({ batch: 5, heads: [2, 1], dim: 8, page: [4, 3] }), 4),
    variants: (v) => isF32(v) && plain(v),
    inputs: special,
  },
  { name: "pages that do not exist", axes: weighed(sizes({ dim: 16 }), 8), inputs: badTable, seeds: 1 },
  { name: "lengths out of range", axes: weighed(sizes({ batch: 3, dim: 16 })), inputs: badLengths, variants: plain, seeds: 1 },
];

/** Slopes and masks. */
const biases: Case[] = [
  {
    name: "every bias",
    axes: weighed(sizes({ heads: [6, 2], dim: [20, 12], page: [7, 9], masks: 6 }), 4),
    scalars: { window: 40, softCap: 5, scale: 0.3 },
    variants: biased,
    inputs: cache(ragged),
    seeds: 1,
  },
  {
    name: "heads that see nothing",
    axes: weighed(sizes({ batch: 3, dim: 16, page: [8, 9], masks: 4 })),
    variants: only("f32", true, "bits", "f32"),
    inputs: hidden,
    seeds: 1,
  },
];

export const cases: OpCases = {
  cases: [...withoutBiases(cached), ...biases],
  mutants: [
    ...mutants,
    ...biasMutants,
    changed("masses of the next granule", (call) => {
      const { masses } = call.tensors as AnchorTensors;
      const granules = granulesOf(call.axes as AnchorAxes);
      for (let row = 0; row < masses.length; row += granules) {
        const first = masses[row] as number;
        masses.copyWithin(row, row + 1, row + granules);
        masses[row + granules - 1] = first;
      }
    }),
    changed("masses summed over the heads", (call) => {
      const { masses } = call.tensors as AnchorTensors;
      const { queryHeads, kvHeads } = call.axes as AnchorAxes;
      for (const [i, mass] of masses.entries()) masses[i] = (mass * queryHeads) / kvHeads;
    }),
    changed("masses relative to the largest, not to the sum", (call) => {
      const { masses } = call.tensors as AnchorTensors;
      const granules = granulesOf(call.axes as AnchorAxes);
      for (let row = 0; row < masses.length; row += granules) {
        const largest = Math.max(...masses.subarray(row, row + granules));
        if (largest > 0) for (let g = row; g < row + granules; g++) masses[g] = (masses[g] as number) / largest;
      }
    }),
    changed("a granule larger than it is", (call, reference) => {
      const axes = call.axes as AnchorAxes;
      const { masses } = call.tensors as AnchorTensors;
      const [granules, fewer] = [granulesOf(axes), granulesOf({ ...axes, granularity: axes.granularity + 1 })];
      const other = new Float32Array((masses.length / granules) * fewer);
      reference(withTensors({ ...call, axes: { ...axes, granularity: axes.granularity + 1 }, magnitude: undefined }, { masses: other }));
      masses.fill(0);
      for (let row = 0; row * granules < masses.length; row++) masses.set(other.subarray(row * fewer, (row + 1) * fewer), row * granules);
    }),
  ],
  laws: [dense],
  bench: decodeCases.bench.map(({ sample: _, ...bench }) => ({ ...bench, axes: { ...bench.axes, granularity: 16 } })),
};

/** The reference, and then something done to the masses. */
function changed(name: string, change: (call: ReferenceCall, reference: (call: ReferenceCall) => void) => void): Mutant {
  return {
    name,
    run(call, op) {
      op.reference(call);
      change(call, op.reference);
    },
    blind: (evidence) =>
      shows(evidence, (call) => {
        evidence.op.reference(call);
        change(call, evidence.op.reference);
      })
        ? undefined
        : "no mass moves by more than the roundings allowed",
  };
}
