import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { badSteps, long, type StreamTensors, sizes, special } from "../continual-single/inputs.js";
import { ringMutants, wrong } from "../continual-single/mutants.js";
import type { RingAxes } from "../continual-single/ring.js";
import { defaultTolerance, retroactive } from "./inputs.js";
import { kernel32 } from "./kernel32.js";
import { laws } from "./laws.js";
import { rowExtra } from "./reference.js";

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
    calibrate: window === 64,
    axes: sizes(1, 8, window, 64),
    variants: [{}],
    inputs: quick,
    // One head.
    sample: (whole, inputs) => {
      const part = ([port, data]: [string, Tensors[string]]) => [port, port === "steps" ? data : data.slice(0, data.length / 8)];
      return {
        axes: { ...whole, heads: 1 },
        inputs: Object.fromEntries(Object.entries(inputs).map(part)),
        pick: ({ out, error, recomputed }) => ({
          out: (out as Float32Array).subarray(0, window * 64),
          error: (error as Float32Array).subarray(0, 1),
          recomputed: (recomputed as Int32Array).subarray(0, 1),
        }),
      };
    },
  })),
};

/** Of large windows quickly: four tokens again and again, and estimates of all sizes, so that each step refreshes its share of the rows. */
function quick(request: InputRequest): Tensors {
  const { heads, window, headDim } = request.axes as RingAxes;
  const width = headDim + rowExtra;
  const one = retroactive({ spread: 1, arrived: () => 4 })({ ...request, axes: { ...request.axes, heads: 1, window: 4 } });
  const ring = (port: string, each: number) => {
    const data = one[port] as Float32Array;
    const out = new Float32Array(heads * window * each);
    for (let i = 0; i < heads * window; i++) out.set(data.subarray((i % 4) * each, ((i % 4) + 1) * each), i * each);
    return out;
  };
  const wide = (port: string) =>
    Float32Array.from({ length: heads * headDim }, (_, i) => (one[port] as Float32Array)[i % headDim] as number);
  const rows = ring("rows", width);
  for (let i = 0; i < heads * window; i++) {
    const row = rows.subarray(i * width, (i + 1) * width);
    // Each of the tokens is there window / 4 times.
    for (let d = 0; d < headDim + 2; d++) if (d !== headDim) row[d] = ((row[d] as number) * window) / 4;
    row[headDim + 2] = 0.9 * defaultTolerance(window) * (((i * 389) % window) / window);
  }
  return {
    ...Object.fromEntries(["query", "key", "value"].map((port) => [port, wide(port)])),
    ...Object.fromEntries(["keyRing", "valueRing", "queryRing"].map((port) => [port, ring(port, headDim)])),
    rows,
    steps: Int32Array.of(window),
  };
}
