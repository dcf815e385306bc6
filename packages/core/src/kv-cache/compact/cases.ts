import { numberToF16 } from "../../half.js";
import type { ReferenceCall } from "../../op/define.js";
import type { Case, Evidence, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import type { CompactAxes, CompactTensors } from "./reference.js";

/** Sequences of any length in pages of any order; each token of each head is kept with a chance of `share`. */
const inputs =
  (share: number, damage?: (tensors: CompactTensors, axes: CompactAxes) => void) =>
  ({ axes, variant, random }: InputRequest): Tensors => {
    const { batch, kvHeads, headDim, valueDim, pages, pageSize, maxPages, maxKept } = axes as CompactAxes;
    const free = Array.from({ length: pages }, (_, page) => page);
    const pageTable = Int32Array.from({ length: batch * maxPages }, () => free.splice(random.below(free.length), 1)[0] as number);
    const lengths = Int32Array.from({ length: batch }, () => maxPages * pageSize - random.below(pageSize));
    const kept = new Int32Array(batch * kvHeads * maxKept).fill(-1);
    const keptCount = new Int32Array(batch * kvHeads);
    for (let list = 0; list < batch * kvHeads; list++)
      for (let token = 0; token < (lengths[Math.floor(list / kvHeads)] as number); token++) {
        const count = keptCount[list] as number;
        if (random.uniform() >= share || count === maxKept) continue;
        kept[list * maxKept + count] = token;
        keptCount[list] = count + 1;
      }
    const rows = pages * kvHeads * pageSize;
    const cache = (length: number) => {
      if (variant.keyPages === "f32") return random.values(length, () => random.normal());
      if (variant.keyPages === "i8") return Int8Array.from({ length }, () => random.below(255) - 127);
      return Uint16Array.from({ length }, () => numberToF16(random.normal()));
    };
    const scales = () => random.values(rows, () => 0.01 + random.uniform());
    const tensors = {
      pageTable,
      lengths,
      kept,
      keptCount,
      keyPages: cache(rows * headDim),
      valuePages: cache(rows * valueDim),
      ...(variant.keyPages === "i8" ? { keyScale: scales(), valueScale: scales() } : {}),
    };
    damage?.(tensors as CompactTensors, axes as CompactAxes);
    return tensors;
  };

const sizes = (batch: number, kvHeads: number, headDim: number, valueDim: number, pageSize: number, maxPages: number): CompactAxes => ({
  batch,
  kvHeads,
  headDim,
  valueDim,
  pages: batch * maxPages + 1,
  pageSize,
  maxPages,
  maxKept: maxPages * pageSize,
});

const list: Case[] = [
  { name: "half of the tokens", axes: sizes(2, 3, 16, 8, 4, 5), inputs: inputs(0.5) },
  { name: "odd sizes", axes: sizes(1, 2, 33, 17, 5, 3), inputs: inputs(0.7) },
  { name: "few of many", axes: sizes(2, 2, 8, 8, 16, 6), inputs: inputs(0.1), seeds: 1 },
  { name: "all are kept", axes: sizes(1, 2, 8, 12, 4, 3), inputs: inputs(1), seeds: 1 },
  { name: "none is kept", axes: sizes(2, 1, 8, 8, 4, 2), inputs: inputs(0), seeds: 1 },
  { name: "pages of one token", axes: sizes(1, 2, 5, 7, 1, 12), inputs: inputs(0.5), seeds: 1 },
  { name: "fewer sequences at run time", axes: sizes(3, 1, 8, 8, 4, 3), live: { batch: 2 }, inputs: inputs(0.5), seeds: 1 },
  { name: "no sequences", axes: { ...sizes(0, 2, 8, 8, 4, 2), pages: 3 }, inputs: inputs(0.5), seeds: 1 },
  {
    name: "a list that does not ascend",
    axes: sizes(2, 2, 8, 8, 4, 3),
    inputs: inputs(0.8, ({ kept, keptCount }, { maxKept }) => {
      if ((keptCount[1] as number) > 3) kept[maxKept + 2] = kept[maxKept + 1] as number;
    }),
  },
  {
    name: "a token behind the end",
    axes: sizes(1, 2, 8, 8, 4, 3),
    inputs: inputs(0.6, ({ kept, lengths, keptCount }) => {
      kept[(keptCount[0] as number) - 1] = lengths[0] as number;
    }),
  },
  {
    name: "a page that does not exist",
    axes: sizes(2, 1, 8, 8, 4, 3),
    inputs: inputs(0.9, ({ pageTable }) => {
      pageTable[1] = 7;
    }),
  },
  {
    name: "a length that cannot be",
    axes: sizes(2, 1, 8, 8, 4, 3),
    inputs: inputs(0.9, ({ lengths }) => {
      lengths[1] = 13;
    }),
    seeds: 1,
  },
  {
    name: "a count that cannot be",
    axes: sizes(2, 2, 8, 8, 4, 3),
    inputs: inputs(0.9, ({ keptCount }) => {
      keptCount[2] = -4;
    }),
    seeds: 1,
  },
];

const withTensors = (call: ReferenceCall, tensors: Partial<CompactTensors>): ReferenceCall => ({
  ...call,
  tensors: { ...call.tensors, ...tensors },
});

/** Whether running a wrong call leaves other bytes than the right one: then the mutant must be seen. */
const shows =
  (change: (given: CompactTensors, axes: CompactAxes) => Partial<CompactTensors>, why: string) =>
  ({ op, axes, variant, pitch, scalars, inputs: given, expected }: Evidence): string | undefined => {
    const own = Object.fromEntries(Object.entries(given).map(([name, data]) => [name, data.slice()])) as unknown as CompactTensors;
    const tensors = { ...own, ...change(own, axes as CompactAxes) };
    op.reference({ axes, variant, pitch, scalars, tensors, fail() {} });
    const differs = Object.entries(expected).some(([name, data]) =>
      data.some((value, i) => !Object.is(value, (own as unknown as Tensors)[name]?.[i])),
    );
    return differs ? undefined : why;
  };

const mutant = (name: string, why: string, change: (given: CompactTensors, axes: CompactAxes) => Partial<CompactTensors>) => ({
  name,
  run: (call: ReferenceCall, op: Evidence["op"]) => op.reference(withTensors(call, change(call.tensors, call.axes as CompactAxes))),
  blind: shows(change, why),
});

export const cases: OpCases = {
  cases: list,
  mutants: [
    mutant("last token dropped", "no head's last token moves", ({ keptCount }) => ({
      keptCount: keptCount.map((n) => (n > 0 ? n - 1 : n)),
    })),
    mutant("the same tokens for all heads", "the heads keep the same", ({ kept, keptCount }, { kvHeads, maxKept }) => ({
      kept: kept.map((_, at) => kept[(at % maxKept) + Math.floor(at / (maxKept * kvHeads)) * maxKept * kvHeads] as number),
      keptCount: keptCount.map((_, at) => keptCount[Math.floor(at / kvHeads) * kvHeads] as number),
    })),
    mutant("values left where they are", "no value moves", ({ valuePages }) => ({ valuePages: valuePages.slice() })),
    mutant("pages in their own order", "the pages are in their own order", ({ pageTable }) => ({
      pageTable: pageTable.slice().sort((a, b) => a - b),
    })),
  ],
  laws: [
    {
      name: "keeping some of what was kept is keeping them at once",
      axes: sizes(1, 2, 8, 8, 4, 4),
      async check(run, request) {
        const given = inputs(0.7)(request) as unknown as CompactTensors;
        const { maxKept } = request.axes as CompactAxes;
        // Every second of the kept ones.
        const [kept, again, count] = [
          given.kept.slice().fill(-1),
          given.kept.slice().fill(-1),
          given.keptCount.map((n) => Math.ceil(n / 2)),
        ];
        for (const [at, n] of count.entries())
          for (let i = 0; i < n; i++) {
            kept[at * maxKept + i] = given.kept[at * maxKept + 2 * i] as number;
            again[at * maxKept + i] = 2 * i;
          }
        const at = await run(request.axes, request.variant, { ...(given as unknown as Tensors), kept, keptCount: count });
        const first = await run(request.axes, request.variant, given as unknown as Tensors);
        const second = await run(request.axes, request.variant, {
          ...(given as unknown as Tensors),
          ...first,
          kept: again,
          keptCount: count,
        });
        const { kvHeads, pageSize, headDim } = request.axes as CompactAxes;
        for (const [head, n] of count.entries())
          for (let i = 0; i < n; i++) {
            const page = given.pageTable[Math.floor(i / pageSize)] as number;
            const row = ((page * kvHeads + head) * pageSize + (i % pageSize)) * headDim;
            for (let j = row; j < row + headDim; j++)
              if (at.keyPages?.[j] !== second.keyPages?.[j]) return `key ${i} of head ${head} differs`;
          }
        return undefined;
      },
    },
  ],
  bench: [
    {
      name: "1024 of 4096 tokens, 8 heads x 128",
      calibrate: true,
      axes: { ...sizes(1, 8, 128, 128, 16, 256), maxKept: 1024 },
      variants: [{ keyPages: "f32" }, { keyPages: "f16" }, { keyPages: "i8" }],
      inputs: inputs(0.5),
    },
  ],
};
