import type { ReferenceCall } from "../../op/define.js";
import type { Case, Evidence, InputRequest, Mutant, OpCases, Tensors } from "../../testing/case.js";
import type { Random } from "../../testing/random.js";
import { forced, reference, type SelectAxes, type SelectTensors } from "./reference.js";

type Score = (random: Random, i: number) => number;
const spread: Score = (random) => random.normal();
/** Few values, 0 and -0 among them: most choices are between equals. */
const coarse: Score = (random) => random.pick([-1, -0, 0, 0.5, 2]);
/** What a softmax gives: many small masses, some of them equal, a few large ones. */
const mass: Score = (random) => Math.fround(2 ** -(1 + random.below(40)) * (1 + random.below(4)));
const special: Score = (random) => random.pick([Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, 0, 1, random.normal()]);

const full = ({ granules, granularity }: SelectAxes): number => granules * granularity;
const ragged = (axes: SelectAxes, random: Random, b: number): number => (b === 0 ? full(axes) : random.below(full(axes) + 1));

/** Scores beyond a sequence's length are the largest of all: one that is listed shows. */
const scored =
  (score: Score, length: (axes: SelectAxes, random: Random, b: number) => number = ragged) =>
  ({ axes, random }: InputRequest): Tensors => {
    const a = axes as SelectAxes;
    const lengths = Int32Array.from({ length: a.batch }, (_, b) => length(a, random, b));
    const scores = random.values(a.batch * a.heads * a.granules, () => 0);
    for (let i = 0; i < scores.length; i++) {
      const b = Math.floor(i / (a.heads * a.granules));
      scores[i] = (i % a.granules) * a.granularity < (lengths[b] as number) ? score(random, i) : 1e30;
    }
    return { scores, lengths };
  };

const sizes = (granules: number, k: number, rest: Partial<SelectAxes> = {}): SelectAxes => ({
  batch: 3,
  heads: 2,
  granules,
  granularity: 16,
  k,
  ...rest,
  lists: rest.lists ?? rest.heads ?? 2,
});

const counts: Case[] = [1, 2, 7, 31, 64, 255, 256, 257, 700].map((granules) => ({
  name: `${granules} granules`,
  axes: sizes(granules, Math.ceil(granules / 3)),
  inputs: scored(spread),
  seeds: 1,
}));

export const cases: OpCases = {
  cases: [
    ...counts,
    { name: "masses", axes: sizes(300, 64), scalars: { sink: 4, recent: 40 }, inputs: scored(mass), seeds: 3 },
    { name: "equal scores", axes: sizes(120, 50), inputs: scored(coarse), seeds: 3 },
    { name: "one score for all", axes: sizes(77, 30), inputs: scored(() => 0.25), seeds: 1 },
    { name: "NaN and infinities", axes: sizes(90, 60), inputs: scored(special), seeds: 3 },
    { name: "tokens", axes: sizes(200, 40, { granularity: 1 }), scalars: { sink: 4, recent: 16 }, inputs: scored(spread) },
    { name: "granules of 64", axes: sizes(33, 9, { granularity: 64 }), scalars: { sink: 1, recent: 65 }, inputs: scored(spread) },
    { name: "granules of 5", axes: sizes(41, 20, { granularity: 5 }), scalars: { sink: 11, recent: 14 }, inputs: scored(coarse) },
    { name: "everything", axes: sizes(50, 50), scalars: { sink: 4, recent: 16 }, inputs: scored(spread) },
    { name: "one entry", axes: sizes(40, 1), inputs: scored(spread) },
    { name: "a smaller budget", axes: sizes(60, 40), scalars: { budget: 11, sink: 16, recent: 20 }, inputs: scored(spread) },
    { name: "a budget beyond the lists", axes: sizes(60, 10), scalars: { budget: 1000 }, inputs: scored(spread), seeds: 1 },
    { name: "more forced than the budget", axes: sizes(60, 6), scalars: { sink: 64, recent: 80 }, inputs: scored(spread), seeds: 1 },
    { name: "all forced", axes: sizes(20, 8), scalars: { sink: 4_000_000_000, recent: 4_294_967_295 }, inputs: scored(spread), seeds: 1 },
    { name: "one list for all heads", axes: sizes(130, 40, { heads: 5, lists: 1 }), scalars: { sink: 4 }, inputs: scored(spread) },
    { name: "one list, masses", axes: sizes(64, 20, { heads: 8, lists: 1 }), inputs: scored(mass), seeds: 3 },
    { name: "one list, NaN and infinities", axes: sizes(50, 30, { heads: 3, lists: 1 }), inputs: scored(special), seeds: 3 },
    { name: "one head", axes: sizes(70, 20, { heads: 1 }), inputs: scored(spread), seeds: 1 },
    { name: "many rows", axes: sizes(20, 6, { batch: 9, heads: 7 }), inputs: scored(coarse), seeds: 1 },
    { name: "a long context", axes: sizes(5000, 300, { batch: 1, heads: 1 }), scalars: { recent: 60 }, inputs: scored(mass), seeds: 1 },
    { name: "empty sequences", axes: sizes(10, 4), inputs: scored(spread, () => 0), seeds: 1 },
    { name: "no sequences", axes: sizes(10, 4, { batch: 0 }), inputs: scored(spread), seeds: 1 },
    { name: "fewer sequences at run time", axes: sizes(30, 8, { batch: 4 }), live: { batch: 2 }, inputs: scored(spread), seeds: 1 },
    {
      name: "lengths out of range",
      axes: sizes(30, 8),
      inputs: scored(spread, (axes, _, b) => [-1, 200, full(axes) + 1][b % 3] as number),
      seeds: 1,
    },
  ],
  mutants: [
    wrong("worst first", (call, run) =>
      run({ ...call, tensors: { ...tensorsOf(call), scores: tensorsOf(call).scores.map((score) => -score) } }),
    ),
    wrong("ties by higher index", higherFirst),
    wrong("a NaN above everything", (call, run) =>
      run({
        ...call,
        tensors: { ...tensorsOf(call), scores: tensorsOf(call).scores.map((score) => (Number.isNaN(score) ? Infinity : score)) },
      }),
    ),
    wrong("first tokens not forced", (call, run) => run({ ...call, scalars: { ...call.scalars, sink: 0 } })),
    wrong("last tokens not forced", (call, run) => run({ ...call, scalars: { ...call.scalars, recent: 0 } })),
    wrong("the budget forgotten", (call, run) => run({ ...call, scalars: { ...call.scalars, budget: 0 } })),
    wrong("one entry too few", (call, run) => {
      run(call);
      const { selected, counts: found } = tensorsOf(call);
      const { k } = call.axes as SelectAxes;
      for (const [row, count] of found.entries())
        if (count > 0 && count <= k) {
          selected[row * k + count - 1] = -1;
          found[row] = count - 1;
        }
    }),
    wrong("lengths ignored", (call, run) => {
      const { granules, granularity } = call.axes as SelectAxes;
      run({ ...call, tensors: { ...tensorsOf(call), lengths: tensorsOf(call).lengths.map(() => granules * granularity) } });
    }),
    wrong("the first head's scores for every list", (call, run) => {
      const { batch, heads, granules } = call.axes as SelectAxes;
      const scores = tensorsOf(call).scores.slice();
      for (let b = 0; b < batch; b++)
        for (let h = 1; h < heads; h++) scores.copyWithin((b * heads + h) * granules, b * heads * granules, (b * heads + 1) * granules);
      run({ ...call, tensors: { ...tensorsOf(call), scores } });
    }),
  ],
  laws: [
    {
      name: "listed granules score at least as well as those that are not",
      axes: sizes(150, 40, { batch: 2, heads: 3 }),
      async check(run, request) {
        const given = scored(mass)(request) as unknown as SelectTensors;
        const axes = request.axes as SelectAxes;
        const { selected, counts: found } = (await run(axes, {}, given as unknown as Tensors)) as unknown as SelectTensors;
        for (const [row, count] of found.entries()) {
          const list = [...selected.subarray(row * axes.k, row * axes.k + count)];
          const { total } = forced(axes, { budget: 0, sink: 0, recent: 0 }, given.lengths[Math.floor(row / axes.lists)] as number);
          if (count !== total || list.some((granule, i) => i > 0 && granule <= (list[i - 1] as number)))
            return `list ${row} is ${list.join(" ")}`;
          const score = (granule: number): number => given.scores[row * axes.granules + granule] as number;
          const worst = Math.min(...list.map(score));
          const last = Math.max(...list.filter((granule) => score(granule) === worst));
          const all = Math.ceil((given.lengths[Math.floor(row / axes.lists)] as number) / axes.granularity);
          for (let granule = 0; granule < all; granule++)
            if (!list.includes(granule) && (score(granule) > worst || (score(granule) === worst && granule < last)))
              return `list ${row} leaves out ${granule}, which scores ${score(granule)} where ${last} scores ${worst}`;
        }
        return undefined;
      },
    },
  ],
  bench: [
    {
      name: "8 heads, 1024 granules, 64 listed",
      calibrate: true,
      axes: sizes(1024, 64, { batch: 1, heads: 8 }),
      variants: [{}],
      inputs: scored(mass),
    },
    {
      name: "8 heads, 16384 tokens, 1024 listed",
      axes: sizes(16384, 1024, { batch: 1, heads: 8, granularity: 1 }),
      variants: [{}],
      inputs: scored(mass),
    },
  ],
};

/** A wrong kernel; it cannot be seen where it lists the same. */
function wrong(name: string, run: (call: ReferenceCall, rest: (call: ReferenceCall) => void) => void): Mutant {
  return {
    name,
    run: (call) => run(call, reference),
    blind(evidence) {
      const { selected, counts: found } = rerun(evidence, (call) => run(call, reference));
      const expected = evidence.expected as unknown as SelectTensors;
      const { k, lists, batch } = evidence.axes as SelectAxes;
      for (let row = 0; row < batch * lists; row++) {
        if (found[row] !== expected.counts[row]) return undefined;
        for (let i = row * k; i < (row + 1) * k; i++) if (selected[i] !== expected.selected[i]) return undefined;
      }
      return "it lists the same granules";
    },
  };
}

function rerun({ axes, variant, pitch, scalars, inputs }: Evidence, kernel: (call: ReferenceCall) => void) {
  const { batch, lists, k } = axes as SelectAxes;
  const outputs = { selected: new Int32Array(batch * lists * k), counts: new Uint32Array(batch * lists) };
  kernel({ axes, variant, pitch, scalars, tensors: { ...inputs, ...outputs }, fail() {} });
  return outputs;
}

const tensorsOf = (call: ReferenceCall): SelectTensors => call.tensors as SelectTensors;

/** The granules turned around, so that equal scores go the other way; forced ones stay where they are. */
function higherFirst(call: ReferenceCall, run: (call: ReferenceCall) => void): void {
  const { batch, heads, granules, granularity, lists, k } = call.axes as SelectAxes;
  const { lengths, selected } = tensorsOf(call);
  const scores = tensorsOf(call).scores.slice();
  const turned: [number, number][] = [];
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    const inRange = length >= 0 && length <= granules * granularity;
    const { first, last } = inRange ? forced(call.axes as SelectAxes, call.scalars, length) : { first: 0, last: 0 };
    const end = inRange ? Math.ceil(length / granularity) - last : 0;
    turned.push([first, end]);
    for (let h = 0; h < heads; h++) scores.subarray((b * heads + h) * granules + first, (b * heads + h) * granules + end).reverse();
  }
  run({ ...call, tensors: { ...tensorsOf(call), scores } });
  for (let row = 0; row < batch * lists; row++) {
    const [first, end] = turned[Math.floor(row / lists)] as [number, number];
    const list = selected.subarray(row * k, (row + 1) * k);
    const held = [...list].filter((granule) => granule >= 0);
    list.set(held.map((granule) => (granule >= first && granule < end ? first + end - 1 - granule : granule)).sort((i, j) => i - j));
  }
}
