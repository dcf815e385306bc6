import type { OpCases, Tensors } from "../../testing/case.js";
import { decode } from "../decode/spec.js";
import { badSteps, long, single, sizes, special } from "./inputs.js";
import { ringMutants } from "./mutants.js";
import type { SingleTensors } from "./reference.js";
import { type RingAxes, turnOf } from "./ring.js";

export const cases: OpCases = {
  cases: [
    { name: "a window of 64", axes: sizes(2, 2, 64, 64), inputs: single(1, long) },
    { name: "logits of deviation 36", axes: sizes(1, 2, 64, 64), inputs: single(36, long), seeds: 1 },
    { name: "a window of one", axes: sizes(3, 2, 1, 8), inputs: single(4, long), seeds: 1 },
    { name: "an odd window", axes: sizes(2, 3, 77, 80), inputs: single(4, long), seeds: 1 },
    { name: "heads that fill no vector", axes: sizes(2, 2, 5, 13), inputs: single(2, long), seeds: 1 },
    { name: "a long window", axes: sizes(1, 1, 1500, 24), inputs: single(2, long), seeds: 1 },
    { name: "the first steps", axes: sizes(4, 2, 3, 16), inputs: single(2, (stream) => stream), seeds: 1 },
    { name: "half full", axes: sizes(2, 2, 40, 8), inputs: single(2, (stream) => 19 + stream), seeds: 1 },
    { name: "steps begin again", axes: sizes(2, 2, 6, 8), inputs: single(2, () => 11), seeds: 1 },
    { name: "another scale", axes: sizes(1, 2, 20, 24), scalars: { scale: -0.7 }, inputs: single(1, long), seeds: 1 },
    { name: "fewer streams at run time", axes: sizes(4, 2, 8, 16), live: { streams: 3 }, inputs: single(2, long), seeds: 1 },
    { name: "no streams", axes: sizes(0, 2, 8, 8), inputs: single(1, long), seeds: 1 },
    { name: "special values", axes: sizes(1, 6, 9, 20), inputs: single(1, long, special), seeds: 1 },
    { name: "steps out of range", axes: sizes(3, 2, 9, 8), inputs: single(1, long, badSteps), seeds: 1 },
  ],
  mutants: ringMutants,
  laws: [
    {
      name: "it is a decode step over the ring",
      axes: sizes(2, 2, 24, 32),
      async check(run, request, other) {
        const { streams, heads, window, headDim } = request.axes as RingAxes;
        const given = single(3, long)(request) as unknown as SingleTensors;
        const got = (await run(request.axes, {}, given as unknown as Tensors)) as unknown as SingleTensors;
        const axes = { batch: streams, queryHeads: heads, kvHeads: heads, headDim, valueDim: headDim };
        const pages = { pages: streams, pageSize: window, maxPages: 1 };
        const wanted = await other(decode)(
          { ...axes, ...pages },
          { keyPages: "f32", sinks: false },
          {
            queries: given.query,
            keyPages: got.keyRing,
            valuePages: got.valueRing,
            pageTable: Int32Array.from({ length: streams }, (_, i) => i),
            lengths: new Int32Array(streams).fill(window),
          },
          { scale: 1 / Math.sqrt(headDim), softCap: 0, window: 0 },
        );
        if (got.steps.some((step, i) => step !== turnOf(given.steps[i] as number, window)?.next)) return "steps are not counted";
        const far = got.out.findIndex((value, i) => !(Math.abs(value - (wanted.out?.[i] as number)) < 2e-5));
        return far < 0 ? undefined : `out[${far}] is ${got.out[far]}, decode says ${wanted.out?.[far]}`;
      },
    },
  ],
  bench: [64, 1024].map((window) => ({
    name: `window ${window}, 8 heads x 64`,
    calibrate: window === 64,
    axes: sizes(1, 8, window, 64),
    variants: [{}],
    inputs: single(1, long),
  })),
};
