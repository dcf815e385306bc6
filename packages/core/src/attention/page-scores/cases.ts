import type { AnyVariant, ReferenceCall } from "../../op/define.js";
import type { Case, InputRequest, Law, OpCases, Tensors } from "../../testing/case.js";
import { toleranceOf } from "../../testing/compare.js";
import { cache, full, type Lengths, of, ragged } from "../decode/inputs.js";
import { changing, withTensors } from "../decode/mutants.js";
import { keysOf, statsLength } from "../page-stats/cases.js";
import { pageStats } from "../page-stats/spec.js";
import type { PageScoresAxes, PageScoresTensors } from "./reference.js";
import { pageScores } from "./spec.js";

/** Statistics of the granules that sequences hold; those of others are NaN, so that one too many shows. */
const held =
  (lengths: Lengths) =>
  (request: InputRequest): Tensors => {
    const axes = request.axes as PageScoresAxes;
    const { batch, kvHeads, headDim, pageSize, maxPages, granularity } = axes;
    const { random } = request;
    const variant = { keyPages: "f32" };
    const {
      queries,
      pageTable,
      lengths: has,
    } = cache(lengths)({ axes: { ...axes, valueDim: 1 }, variant, random }) as unknown as PageScoresTensors;
    const stats = new Float32Array(statsLength(axes)).fill(Number.NaN);
    const perPage = pageSize / granularity;
    for (let b = 0; b < batch; b++)
      for (let g = 0; g * granularity < (has[b] as number); g++)
        for (let head = 0; head < kvHeads; head++) {
          const page = pageTable[b * maxPages + Math.floor(g / perPage)] as number;
          const at = ((page * kvHeads + head) * perPage + (g % perPage)) * 2 * headDim;
          for (let i = 0; i < headDim; i++) {
            const [mean, more] = [random.normal(), random.uniform()];
            stats[at + i] = request.variant.statistics === "minmax" ? mean - more : mean;
            stats[at + headDim + i] = request.variant.statistics === "minmax" ? mean + more : more;
          }
        }
    return { queries, pageStats: stats, pageTable, lengths: has };
  };

const sizes = (
  headDim: number,
  [queryHeads, kvHeads]: [number, number],
  [pageSize, maxPages]: [number, number],
  rest: Partial<PageScoresAxes> = {},
): PageScoresAxes => {
  const { batch = 2 } = rest;
  return { batch, queryHeads, kvHeads, headDim, pages: batch * maxPages + 2, pageSize, maxPages, granularity: pageSize, ...rest };
};

const changed =
  (inputs: Case["inputs"], change: (tensors: PageScoresTensors, axes: PageScoresAxes) => void): Case["inputs"] =>
  (request) => {
    const tensors = inputs(request);
    change(tensors as unknown as PageScoresTensors, request.axes as PageScoresAxes);
    return tensors;
  };

/** A query with a NaN, one with an infinity; a granule with a NaN, one with an infinity. */
const notFinite = changed(
  held(full),
  ({ queries, pageStats: stats, pageTable }, { queryHeads, kvHeads, headDim, pageSize, granularity }) => {
    queries[0] = Number.NaN;
    queries[queryHeads * headDim - 1] = Number.POSITIVE_INFINITY;
    const row = (entry: number): number => (pageTable[entry] as number) * kvHeads * (pageSize / granularity) * 2 * headDim;
    stats[row(1) + 1] = Number.NaN;
    stats[row(2) + headDim] = Number.POSITIVE_INFINITY;
  },
);

/** What all variants have in common is tried with some. */
const dealt =
  (n: number) =>
  (_: AnyVariant, i: number): boolean =>
    i === n;

const tried: Case[] = [
  { name: "heads of 64", axes: sizes(64, [4, 2], [16, 7]), inputs: held(ragged) },
  { name: "heads of 128, 8 of a group", axes: sizes(128, [8, 1], [16, 9]), scalars: { spread: 0.25 }, inputs: held(ragged), seeds: 1 },
  { name: "heads of 20, four granules a page", axes: sizes(20, [9, 3], [8, 6], { granularity: 2 }), inputs: held(ragged) },
  { name: "heads of 7, 5 of a group", axes: sizes(7, [5, 1], [5, 11]), scalars: { spread: -1.5 }, inputs: held(ragged) },
  { name: "one component", axes: sizes(1, [2, 2], [4, 6]), inputs: held(ragged), seeds: 1 },
  { name: "one piece, granules of one token", axes: sizes(33, [2, 1], [90, 1], { granularity: 1 }), inputs: held(of(90, 41)), seeds: 1 },
  { name: "heads of 600", axes: sizes(600, [2, 1], [4, 3]), inputs: held(full), seeds: 1 },
  { name: "means alone", axes: sizes(16, [4, 2], [4, 5]), scalars: { spread: 0 }, inputs: held(ragged), seeds: 1 },
  { name: "what is not finite", axes: sizes(12, [4, 2], [4, 4]), inputs: notFinite, seeds: 1 },
  { name: "many granules", axes: sizes(4, [2, 2], [1, 300], { batch: 1 }), inputs: held(of(277)), seeds: 1 },
  { name: "empty sequences", axes: sizes(16, [2, 2], [4, 3]), inputs: held(of(0)), variants: dealt(0), seeds: 1 },
  { name: "no sequences", axes: sizes(16, [2, 2], [4, 3], { batch: 0 }), inputs: held(ragged), variants: dealt(1), seeds: 1 },
  {
    name: "fewer sequences at run time",
    axes: sizes(16, [2, 2], [4, 3], { batch: 3 }),
    live: { batch: 2 },
    inputs: held(full),
    variants: dealt(2),
    seeds: 1,
  },
  {
    name: "pages that do not exist",
    axes: sizes(16, [2, 2], [4, 3]),
    inputs: changed(held(full), ({ pageTable }, { pages, maxPages }) => {
      pageTable[1] = pages;
      pageTable[2 * maxPages - 1] = -3;
    }),
    variants: dealt(3),
    seeds: 1,
  },
  {
    name: "lengths out of range",
    axes: sizes(16, [2, 2], [4, 3], { batch: 3 }),
    inputs: changed(held(full), ({ lengths }) => lengths.set([13, 12, -1])),
    variants: dealt(0),
    seeds: 1,
  },
];

const tensorsOf = (call: ReferenceCall): PageScoresTensors => call.tensors as PageScoresTensors;

/** Keys in a cache, their statistics by the op of the backend under test, and the scores that come of these. */
const bounded = (
  name: string,
  axes: PageScoresAxes,
  statistics: string,
  wrong: (score: number, dots: readonly number[], slack: number) => boolean,
): Law => ({
  name,
  axes,
  variants: (variant) => variant.statistics === statistics,
  async check(run, request, other) {
    const { batch, queryHeads, kvHeads, headDim, pageSize, maxPages, granularity } = axes;
    const keys = keysOf(ragged)({ ...request, axes, variant: { keyPages: "f32" } });
    const { pageStats: stats } = await other(pageStats)(withoutQueries(axes), { statistics, keyPages: "f32" }, keys);
    const { pageTable, lengths } = keys as unknown as PageScoresTensors;
    const queries = request.random.values(batch * queryHeads * headDim, () => request.random.normal());
    const inputs = { queries, pageStats: stats as Float32Array, pageTable, lengths };
    const { scores } = (await run(axes, request.variant, inputs)) as unknown as PageScoresTensors;
    const group = queryHeads / kvHeads;
    const granules = (maxPages * pageSize) / granularity;
    for (let at = 0; at < batch * kvHeads * granules; at++) {
      const [row, g] = [Math.floor(at / granules), at % granules];
      const [b, kvHead] = [Math.floor(row / kvHeads), row % kvHeads];
      const dots: number[] = [];
      let size = 0;
      for (let t = g * granularity; t < Math.min(lengths[b] as number, (g + 1) * granularity); t++) {
        const page = pageTable[b * maxPages + Math.floor(t / pageSize)] as number;
        const slot = (page * kvHeads + kvHead) * pageSize + (t % pageSize);
        const each = Array.from({ length: group }, (_, h) => {
          let sum = 0;
          for (let i = 0; i < headDim; i++) {
            const term =
              (queries[(b * queryHeads + kvHead * group + h) * headDim + i] as number) *
              ((keys.keyPages as Float32Array)[slot * headDim + i] as number);
            sum += term;
            size += Math.abs(term);
          }
          return sum;
        });
        dots.push(request.variant.pool === "max" ? Math.max(...each) : each.reduce((a, x) => a + x, 0));
      }
      // No statistic of a component is larger than its largest key.
      const slack = toleranceOf("f32", pageScores.rounding(axes, request.variant).scores as number, Math.max(...dots), 2 * size);
      const score = scores[at] as number;
      if (dots.length === 0 ? score !== Number.NEGATIVE_INFINITY : wrong(score, dots, slack))
        return `granule ${at} scores ${score}, its keys ${dots.join(" ")}`;
    }
    return undefined;
  },
});
const withoutQueries = ({ queryHeads: _, ...axes }: PageScoresAxes) => axes;

export const cases: OpCases = {
  cases: tried,
  mutants: [
    changing("the last granule left out", "the last granule is no result, or has other tokens", (call) => {
      const { granularity } = call.axes as PageScoresAxes;
      return withTensors(call, { lengths: tensorsOf(call).lengths.map((length) => Math.max(0, length - granularity)) });
    }),
    changing("page table ignored", "the pages lie in order, or nothing is read from them", (call) => {
      const { batch, pages, maxPages } = call.axes as PageScoresAxes;
      return withTensors(call, { pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => i % pages) });
    }),
    changing("the other statistics", "nothing is scored", (call) => ({
      ...call,
      variant: { ...call.variant, statistics: call.variant.statistics === "minmax" ? "meanstd" : "minmax" },
    })),
    changing("pooled the other way", "a KV head has one query head, or nothing is scored", (call) => ({
      ...call,
      variant: { ...call.variant, pool: call.variant.pool === "max" ? "sum" : "max" },
    })),
    changing("a query's signs lost", "no query has a negative component, or nothing is scored", (call) =>
      withTensors(call, { queries: tensorsOf(call).queries.map(Math.abs) }),
    ),
    {
      ...changing("the spread off by 1 %", "no score depends on it by more than the roundings allowed", (call) => ({
        ...call,
        scalars: { ...call.scalars, spread: (call.scalars.spread as number) * 1.01 },
      })),
      variants: ({ statistics }) => statistics === "meanstd",
    },
    changing("the first query head for all", "no KV head has two query heads, or nothing is scored", (call) => {
      const { batch, queryHeads, headDim } = call.axes as PageScoresAxes;
      const queries = tensorsOf(call).queries.slice();
      for (let b = 0; b < batch; b++)
        for (let h = 1; h < queryHeads; h++)
          queries.copyWithin((b * queryHeads + h) * headDim, b * queryHeads * headDim, (b * queryHeads + 1) * headDim);
      return withTensors(call, { queries });
    }),
  ],
  laws: [
    bounded(
      "no key of a granule exceeds the bound of its minmax",
      sizes(40, [6, 2], [8, 5], { granularity: 4 }),
      "minmax",
      (score, dots, slack) => !(score >= Math.max(...dots) - slack),
    ),
    bounded(
      "a granule of one token scores its dot product",
      sizes(40, [6, 2], [4, 6], { granularity: 1 }),
      "meanstd",
      (score, [dot = 0], slack) => !(Math.abs(score - dot) <= slack),
    ),
    {
      name: "a sequence gives the same bits alone as in a batch",
      axes: sizes(48, [4, 2], [4, 9], { batch: 3 }),
      async check(run, request) {
        const axes = request.axes as PageScoresAxes;
        const given = held(of(36, 17, 29))(request) as unknown as PageScoresTensors;
        const { scores } = await run(axes, request.variant, given as unknown as Tensors);
        const part = (scores as Float32Array).length / axes.batch;
        const width = axes.queryHeads * axes.headDim;
        for (let b = 0; b < axes.batch; b++) {
          const alone = await run({ ...axes, batch: 1 }, request.variant, {
            queries: given.queries.slice(b * width, (b + 1) * width),
            pageStats: given.pageStats,
            pageTable: given.pageTable.slice(b * axes.maxPages, (b + 1) * axes.maxPages),
            lengths: given.lengths.slice(b, b + 1),
          });
          const at = (alone.scores as Float32Array).findIndex((value, i) => !Object.is(value, scores?.[b * part + i]));
          if (at >= 0) return `sequence ${b}: scores[${at}] is ${alone.scores?.[at]} alone and ${scores?.[b * part + at]} in the batch`;
        }
        return undefined;
      },
    },
  ],
  bench: [
    {
      name: "32/8 heads x 128, 16384 tokens, granules of 16",
      calibrate: true,
      axes: sizes(128, [32, 8], [16, 1024], { batch: 1, pages: 1024 }),
      variants: [
        { statistics: "meanstd", pool: "sum" },
        { statistics: "meanstd", pool: "max" },
        { statistics: "minmax", pool: "sum" },
      ],
      inputs({ axes, random }) {
        const { batch, queryHeads, headDim, pages, maxPages, pageSize } = axes as PageScoresAxes;
        return {
          queries: random.values(batch * queryHeads * headDim, () => random.normal()),
          pageStats: random.values(statsLength(axes as PageScoresAxes), () => random.uniform()),
          pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => (i * 7919) % pages),
          lengths: new Int32Array(batch).fill(maxPages * pageSize),
        };
      },
    },
  ],
};
