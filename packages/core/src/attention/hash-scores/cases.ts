import type { ReferenceCall } from "../../op/define.js";
import type { Case, Evidence, InputRequest, Mutant, OpCases, Tensors } from "../../testing/case.js";
import { cache, full, type Lengths, of, ragged } from "../decode/inputs.js";
import { hashOf } from "../key-hashes/reference.js";
import { type HashScoresAxes, type HashScoresTensors, reference } from "./reference.js";

const sizes = (
  bits: number,
  [queryHeads, kvHeads]: [number, number],
  [pageSize, maxPages]: [number, number],
  rest: Partial<HashScoresAxes> = {},
): HashScoresAxes => {
  const { batch = 2 } = rest;
  return { batch, queryHeads, kvHeads, bits, pages: batch * maxPages + 2, pageSize, maxPages, granularity: pageSize, ...rest };
};

/** Hashes of tokens that are behind the length are those of a query: one too many would score best. */
const hashed =
  (lengths: Lengths) =>
  ({ axes, random }: InputRequest): Tensors => {
    const a = axes as HashScoresAxes;
    const { batch, queryHeads, kvHeads, bits, pages, pageSize, maxPages } = a;
    const { pageTable, lengths: has } = cache(lengths)({
      axes: { ...a, headDim: 1, valueDim: 1 },
      variant: { keyPages: "f32" },
      random,
    }) as unknown as HashScoresTensors;
    const queries = random.values(batch * queryHeads * bits, () => random.normal());
    const words = bits / 32;
    const tempting = hashOf(queries.subarray(0, bits));
    const hashPages = Uint32Array.from({ length: pages * kvHeads * pageSize * words }, (_, i) => tempting[i % words] as number);
    for (let b = 0; b < batch; b++)
      for (let t = 0; t < (has[b] as number); t++)
        for (let head = 0; head < kvHeads; head++) {
          const page = pageTable[b * maxPages + Math.floor(t / pageSize)] as number;
          const at = ((page * kvHeads + head) * pageSize + (t % pageSize)) * words;
          for (let w = 0; w < words; w++) hashPages[at + w] = random.bits();
        }
    return { queries, hashPages, pageTable, lengths: has };
  };

const changed =
  (change: (tensors: HashScoresTensors, axes: HashScoresAxes) => void): Case["inputs"] =>
  (request) => {
    const tensors = hashed(full)(request);
    change(tensors as unknown as HashScoresTensors, request.axes as HashScoresAxes);
    return tensors;
  };

const tensorsOf = (call: ReferenceCall): HashScoresTensors => call.tensors as HashScoresTensors;
const given = (call: ReferenceCall, tensors: Partial<HashScoresTensors>): ReferenceCall => ({
  ...call,
  tensors: { ...tensorsOf(call), ...tensors },
});

/** A wrong kernel; it cannot be seen where it scores the same. */
const wrong = (name: string, change: (call: ReferenceCall) => ReferenceCall): Mutant => ({
  name,
  run: (call) => reference(change(call)),
  blind({ axes, variant, pitch, scalars, inputs, expected }: Evidence) {
    const { batch, kvHeads, maxPages, pageSize, granularity } = axes as HashScoresAxes;
    const scores = new Float32Array((batch * kvHeads * maxPages * pageSize) / granularity);
    reference(change({ axes, variant, pitch, scalars, tensors: { ...inputs, scores }, fail() {} }));
    return scores.every((score, i) => score === expected.scores?.[i]) ? "it scores the same" : undefined;
  },
});

export const cases: OpCases = {
  cases: [
    { name: "128 bits", axes: sizes(128, [4, 2], [16, 4]), inputs: hashed(ragged) },
    { name: "32 bits, granules of one token", axes: sizes(32, [2, 1], [6, 5], { granularity: 1 }), inputs: hashed(ragged) },
    {
      name: "96 bits, 5 heads of a group, four granules a page",
      axes: sizes(96, [10, 2], [8, 4], { granularity: 2 }),
      inputs: hashed(ragged),
    },
    { name: "one piece, granules of 33", axes: sizes(64, [3, 3], [99, 1], { granularity: 33 }), inputs: hashed(of(99, 40)) },
    { name: "1024 bits", axes: sizes(1024, [2, 1], [3, 3]), inputs: hashed(full), seeds: 1 },
    { name: "many granules", axes: sizes(32, [1, 1], [1, 300], { batch: 1 }), inputs: hashed(of(277)), seeds: 1 },
    {
      name: "zeros, NaN and infinities",
      axes: sizes(32, [2, 1], [4, 3]),
      inputs: changed(({ queries }) => queries.set([0, -0, Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, -1e-45])),
      seeds: 1,
    },
    { name: "empty sequences", axes: sizes(32, [2, 2], [4, 3]), inputs: hashed(of(0)), seeds: 1 },
    { name: "no sequences", axes: sizes(32, [2, 2], [4, 3], { batch: 0 }), inputs: hashed(ragged), seeds: 1 },
    {
      name: "fewer sequences at run time",
      axes: sizes(32, [2, 2], [4, 3], { batch: 3 }),
      live: { batch: 2 },
      inputs: hashed(full),
      seeds: 1,
    },
    {
      name: "pages that do not exist",
      axes: sizes(32, [2, 2], [4, 3]),
      inputs: changed(({ pageTable }, { pages, maxPages }) => {
        pageTable[1] = pages;
        pageTable[2 * maxPages - 1] = -3;
      }),
      seeds: 1,
    },
    {
      name: "lengths out of range",
      axes: sizes(32, [2, 2], [4, 3], { batch: 3 }),
      inputs: changed(({ lengths }) => lengths.set([13, 12, -1])),
      seeds: 1,
    },
  ],
  mutants: [
    wrong("a token too many", (call) => {
      const { maxPages, pageSize } = call.axes as HashScoresAxes;
      return given(call, {
        lengths: tensorsOf(call).lengths.map((length) => (length > 0 && length < maxPages * pageSize ? length + 1 : length)),
      });
    }),
    wrong("the last token dropped", (call) =>
      given(call, { lengths: tensorsOf(call).lengths.map((length) => length - Number(length > 0)) }),
    ),
    wrong("signs of the queries turned around", (call) => given(call, { queries: tensorsOf(call).queries.map((x) => -x) })),
    wrong("page table ignored", (call) => {
      const { batch, pages, maxPages } = call.axes as HashScoresAxes;
      return given(call, { pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => i % pages) });
    }),
    wrong("the first query head for all", (call) => {
      const { batch, queryHeads, bits } = call.axes as HashScoresAxes;
      const queries = tensorsOf(call).queries.slice();
      for (let b = 0; b < batch; b++)
        for (let h = 1; h < queryHeads; h++)
          queries.copyWithin((b * queryHeads + h) * bits, b * queryHeads * bits, (b * queryHeads + 1) * bits);
      return given(call, { queries });
    }),
  ],
  laws: [
    {
      name: "a token that equals the query is at distance 0, one that is its opposite at the most",
      axes: sizes(128, [2, 2], [4, 4], { batch: 1, granularity: 1 }),
      async check(run, request) {
        const axes = request.axes as HashScoresAxes;
        const tensors = hashed(full)(request) as unknown as HashScoresTensors;
        const [near, far] = [5, 11];
        const at = (t: number): number => (((tensors.pageTable[t >> 2] as number) * 2 + 1) * 4 + (t & 3)) * 4;
        const hash = hashOf(tensors.queries.subarray(128));
        tensors.hashPages.set(hash, at(near));
        tensors.hashPages.set(
          hash.map((word) => ~word),
          at(far),
        );
        const { scores } = (await run(axes, request.variant, tensors as unknown as Tensors)) as unknown as HashScoresTensors;
        const [best, worst] = [scores[16 + near], scores[16 + far]];
        return best === 0 && worst === -128 ? undefined : `they score ${best} and ${worst}`;
      },
    },
  ],
  bench: [
    {
      name: "32/8 heads, 128 bits, 16384 tokens, granules of 16",
      calibrate: true,
      axes: sizes(128, [32, 8], [16, 1024], { batch: 1, pages: 1024 }),
      variants: [{}],
      inputs: ({ axes, random }) => {
        const { batch, queryHeads, kvHeads, bits, pages, pageSize, maxPages } = axes as HashScoresAxes;
        return {
          queries: random.values(batch * queryHeads * bits, () => random.uniform() - 0.5),
          hashPages: Uint32Array.from({ length: (pages * kvHeads * pageSize * bits) / 32 }, () => random.bits()),
          pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => (i * 7919) % pages),
          lengths: new Int32Array(batch).fill(maxPages * pageSize),
        };
      },
    },
  ],
};
