import type { ReferenceCall } from "../../op/define.js";
import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { cache, full, type Lengths, of, ragged } from "../decode/inputs.js";
import { changing, shows, withTensors } from "../decode/mutants.js";
import { type IndexScoresAxes, type IndexScoresTensors, score } from "./reference.js";

/** The keys of a cache with one head; scales of tokens that no sequence holds are NaN. */
const indexed =
  (lengths: Lengths) =>
  ({ axes, random }: InputRequest): Tensors => {
    const a = axes as IndexScoresAxes;
    const made = cache(lengths)({
      axes: { ...a, queryHeads: a.heads, kvHeads: 1, headDim: a.indexDim, valueDim: 1 },
      variant: { keyPages: "i8" },
      random,
    });
    return {
      queries: made.queries as Float32Array,
      weights: random.values(a.batch * a.heads, () => random.normal()),
      indexKeys: made.keyPages as Int8Array,
      indexScale: made.keyScale as Float32Array,
      pageTable: made.pageTable as Int32Array,
      lengths: made.lengths as Int32Array,
    };
  };

const sizes = (
  heads: number,
  indexDim: number,
  [pageSize, maxPages]: [number, number],
  rest: Partial<IndexScoresAxes> = {},
): IndexScoresAxes => {
  const { batch = 2 } = rest;
  return { batch, heads, indexDim, pages: batch * maxPages + 2, pageSize, maxPages, granularity: pageSize, ...rest };
};

const changed =
  (change: (tensors: IndexScoresTensors, axes: IndexScoresAxes) => void): Case["inputs"] =>
  (request) => {
    const tensors = indexed(full)(request);
    change(tensors as unknown as IndexScoresTensors, request.axes as IndexScoresAxes);
    return tensors;
  };
const tensorsOf = (call: ReferenceCall): IndexScoresTensors => call.tensors as IndexScoresTensors;

export const cases: OpCases = {
  cases: [
    { name: "8 heads of 128", axes: sizes(8, 128, [16, 3]), inputs: indexed(ragged), seeds: 1 },
    { name: "5 heads of 20, granules of one token", axes: sizes(5, 20, [6, 5], { granularity: 1 }), inputs: indexed(ragged) },
    { name: "one head of 7, four granules a page", axes: sizes(1, 7, [8, 6], { granularity: 2 }), inputs: indexed(ragged) },
    { name: "3 heads of 1", axes: sizes(3, 1, [5, 4]), inputs: indexed(ragged) },
    { name: "one piece, granules of 33", axes: sizes(2, 33, [99, 1], { granularity: 33 }), inputs: indexed(of(99, 40)), seeds: 1 },
    { name: "9 heads of 300", axes: sizes(9, 300, [4, 2]), inputs: indexed(full), seeds: 1 },
    { name: "many granules", axes: sizes(2, 4, [1, 300], { batch: 1 }), inputs: indexed(of(277)), seeds: 1 },
    {
      name: "queries and scales that are not finite",
      axes: sizes(2, 16, [4, 3], { batch: 3 }),
      inputs: changed(({ queries, weights, indexScale, pageTable }, { pageSize, maxPages }) => {
        queries[3] = Number.NEGATIVE_INFINITY;
        weights[3] = Number.NaN;
        indexScale[(pageTable[2 * maxPages] as number) * pageSize + 1] = Number.POSITIVE_INFINITY;
      }),
      seeds: 1,
    },
    { name: "empty sequences", axes: sizes(2, 16, [4, 3]), inputs: indexed(of(0)), seeds: 1 },
    { name: "no sequences", axes: sizes(2, 16, [4, 3], { batch: 0 }), inputs: indexed(ragged), seeds: 1 },
    { name: "fewer sequences at run time", axes: sizes(2, 16, [4, 3], { batch: 3 }), live: { batch: 2 }, inputs: indexed(full), seeds: 1 },
    {
      name: "pages that do not exist",
      axes: sizes(2, 16, [4, 3]),
      inputs: changed(({ pageTable }, { pages, maxPages }) => {
        pageTable[1] = pages;
        pageTable[2 * maxPages - 1] = -3;
      }),
      seeds: 1,
    },
    {
      name: "lengths out of range",
      axes: sizes(2, 16, [4, 3], { batch: 3 }),
      inputs: changed(({ lengths }) => lengths.set([13, 12, -1])),
      seeds: 1,
    },
  ],
  mutants: [
    {
      name: "no relu",
      run: (call) => score(call, (x) => x),
      blind: (evidence) => (shows(evidence, (call) => score(call, (x) => x)) ? undefined : "no product of a best token is negative"),
    },
    changing("weights ignored", "nothing is scored, or nothing counts", (call) =>
      withTensors(call, { weights: tensorsOf(call).weights.map(() => 1) }),
    ),
    changing("scales ignored", "nothing is scored, or nothing counts", (call) =>
      withTensors(call, { indexScale: tensorsOf(call).indexScale.map(() => 1) }),
    ),
    changing("the last token dropped", "the last token is not the best of its granule", (call) =>
      withTensors(call, { lengths: tensorsOf(call).lengths.map((length) => Math.max(0, length - 1)) }),
    ),
    changing("page table ignored", "the pages lie in order, or nothing is read from them", (call) => {
      const { batch, pages, maxPages } = call.axes as IndexScoresAxes;
      return withTensors(call, { pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => i % pages) });
    }),
    changing("the first head's query for all", "there is one head, or nothing is scored", (call) => {
      const { batch, heads, indexDim } = call.axes as IndexScoresAxes;
      const queries = tensorsOf(call).queries.slice();
      for (let b = 0; b < batch; b++)
        for (let j = 1; j < heads; j++) queries.copyWithin((b * heads + j) * indexDim, b * heads * indexDim, (b * heads + 1) * indexDim);
      return withTensors(call, { queries });
    }),
  ],
  laws: [
    {
      name: "a granule scores as its best token does",
      axes: sizes(4, 24, [8, 4], { granularity: 4 }),
      async check(run, request) {
        const given = indexed(ragged)(request);
        const [coarse, fine] = [await run(request.axes, {}, given), await run({ ...request.axes, granularity: 1 }, {}, given)];
        const at = (coarse.scores as Float32Array).findIndex(
          (best, g) => best !== Math.max(...(fine.scores as Float32Array).subarray(4 * g, 4 * g + 4)),
        );
        return at < 0 ? undefined : `granule ${at} scores ${coarse.scores?.[at]}, its tokens ${fine.scores?.slice(4 * at, 4 * at + 4)}`;
      },
    },
  ],
  bench: [
    {
      name: "64 heads of 128, 16384 tokens",
      calibrate: true,
      axes: sizes(64, 128, [64, 256], { batch: 1, pages: 256, granularity: 1 }),
      variants: [{}],
      inputs: ({ axes, random }) => {
        const { batch, heads, indexDim, pages, pageSize, maxPages } = axes as IndexScoresAxes;
        return {
          queries: random.values(batch * heads * indexDim, () => random.uniform() - 0.5),
          weights: random.values(batch * heads, () => random.uniform()),
          indexKeys: Int8Array.from({ length: pages * pageSize * indexDim }, () => random.below(255) - 127),
          indexScale: random.values(pages * pageSize, () => 0.01 * random.uniform()),
          pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => (i * 79) % pages),
          lengths: new Int32Array(batch).fill(maxPages * pageSize),
        };
      },
    },
  ],
};
