import type { Case, OpCases } from "../../testing/case.js";
import { badSteps, long, type StreamTensors, sizes, special } from "../continual-single/inputs.js";
import { ringMutants, wrong } from "../continual-single/mutants.js";
import type { RingAxes } from "../continual-single/ring.js";
import { retroactive } from "./inputs.js";
import { kernel32 } from "./kernel32.js";
import { laws } from "./laws.js";

/** The key that leaves lies along some of the queries, which it then had nearly to itself. */
function outweighing({ keyRing, queryRing, steps }: StreamTensors, { streams, heads, window, headDim }: RingAxes): void {
  for (let head = 0; head < streams * heads; head++) {
    const slot = (steps[Math.floor(head / heads)] as number) % window;
    const at = (head * window + slot) * headDim;
    for (let d = 0; d < headDim; d++) {
      const query = queryRing[(head * window + ((slot + 1 + (head % 3)) % window)) * headDim + d] as number;
      keyRing[at + d] = Math.sign(query) * 1.5;
    }
  }
}

const deviations: Case[] = [1, 4, 16, 36].map((spread) => ({
  name: `a window of 64, logits of deviation ${spread}`,
  axes: sizes(1, 1, 64, 64),
  inputs: retroactive({ spread, arrived: long }),
}));

export const cases: OpCases = {
  cases: [
    ...deviations,
    { name: "heads of 80, an odd window", axes: sizes(2, 2, 11, 80), inputs: retroactive({ spread: 4, arrived: long }) },
    { name: "heads of 8", axes: sizes(2, 3, 33, 8), inputs: retroactive({ spread: 2, arrived: long }), seeds: 1 },
    { name: "heads that fill no vector", axes: sizes(1, 2, 18, 13), inputs: retroactive({ spread: 16, arrived: long }), seeds: 1 },
    { name: "a window of one", axes: sizes(3, 2, 1, 8), inputs: retroactive({ spread: 4, arrived: long }), seeds: 1 },
    { name: "a window of two", axes: sizes(3, 2, 2, 8), inputs: retroactive({ spread: 4, arrived: long }) },
    { name: "the first steps", axes: sizes(5, 2, 4, 16), inputs: retroactive({ spread: 2, arrived: (stream) => stream }), seeds: 1 },
    { name: "half full", axes: sizes(2, 2, 20, 24), inputs: retroactive({ spread: 4, arrived: (stream) => 9 + stream }), seeds: 1 },
    { name: "steps begin again", axes: sizes(2, 2, 6, 8), inputs: retroactive({ spread: 2, arrived: () => 11 }), seeds: 1 },
    {
      name: "the leaving key held most of the mass",
      axes: sizes(1, 2, 33, 24),
      inputs: retroactive({ spread: 6, arrived: long, change: outweighing }),
    },
    {
      name: "estimates near a wide tolerance",
      axes: sizes(2, 2, 16, 16),
      scalars: { tolerance: 1e-3 },
      inputs: retroactive({ spread: 2, arrived: long, tolerance: 1e-3, estimates: 1.2 }),
    },
    {
      name: "no tolerance",
      axes: sizes(1, 2, 9, 16),
      scalars: { tolerance: 0 },
      inputs: retroactive({ spread: 2, arrived: long }),
      seeds: 1,
    },
    {
      name: "another scale",
      axes: sizes(1, 2, 10, 24),
      scalars: { scale: -0.7 },
      inputs: retroactive({ spread: 1, arrived: long, scale: -0.7 }),
      seeds: 1,
    },
    {
      name: "fewer streams at run time",
      axes: sizes(4, 2, 8, 16),
      live: { streams: 3 },
      inputs: retroactive({ spread: 2, arrived: long }),
      seeds: 1,
    },
    { name: "no streams", axes: sizes(0, 2, 8, 8), inputs: retroactive({ spread: 1, arrived: long }), seeds: 1 },
    { name: "special values", axes: sizes(1, 6, 9, 20), inputs: retroactive({ spread: 1, arrived: long, change: special }), seeds: 1 },
    { name: "steps out of range", axes: sizes(3, 2, 9, 8), inputs: retroactive({ spread: 1, arrived: long, change: badSteps }), seeds: 1 },
  ],
  mutants: [
    ...ringMutants,
    wrong("no guard", "the guard refuses no row that matters", (call) => kernel32(call, { unguarded: true })),
    wrong("exponentials without a maximum", "no logit is far from 0", (call) => kernel32(call, { raw: true })),
    wrong("the wrong value taken off", "what leaves weighs less than the roundings allowed", (call) => kernel32(call, { nextValue: true })),
    wrong("nothing taken off", "what leaves weighs less than the roundings allowed", (call) => kernel32(call, { keeping: true })),
  ],
  laws,
  bench: [64, 1024].map((window) => ({
    name: `window ${window}, 8 heads x 64`,
    calibrate: window === 1024,
    axes: sizes(1, 8, window, 64),
    variants: [{}],
    inputs: quick,
  })),
};

/** Of large windows quickly: all rows are equal. */
function quick(request: Parameters<Case["inputs"]>[0]) {
  const { heads, window, headDim } = request.axes as RingAxes;
  const one = retroactive({ spread: 1, arrived: () => 4, estimates: 0 })({ ...request, axes: { ...request.axes, heads: 1, window: 4 } });
  const ring = (data: Float32Array, width: number) => {
    const out = new Float32Array(heads * window * width);
    for (let i = 0; i < heads * window; i++) out.set(data.subarray((i % 4) * width, ((i % 4) + 1) * width), i * width);
    return out;
  };
  const wide = (data: Float32Array) => Float32Array.from({ length: heads * headDim }, (_, i) => data[i % headDim] as number);
  const rows = ring(one.rows as Float32Array, headDim + 3);
  // Each of the four tokens is there window / 4 times.
  for (let i = 0; i < heads * window; i++)
    for (let d = 0; d < headDim + 2; d++)
      if (d !== headDim) rows[i * (headDim + 3) + d] = ((rows[i * (headDim + 3) + d] as number) * window) / 4;
  return {
    query: wide(one.query as Float32Array),
    key: wide(one.key as Float32Array),
    value: wide(one.value as Float32Array),
    keyRing: ring(one.keyRing as Float32Array, headDim),
    valueRing: ring(one.valueRing as Float32Array, headDim),
    queryRing: ring(one.queryRing as Float32Array, headDim),
    rows,
    steps: Int32Array.of(window),
  };
}
