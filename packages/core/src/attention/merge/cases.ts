import type { ReferenceCall } from "../../op/define.js";
import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import type { MergeTensors } from "./reference.js";

type Axes = Record<"parts" | "rows" | "valueDim", number>;

/** States of parts; `empty` of them saw no token, and hold poison. */
const states =
  (spread: number, empty: number) =>
  ({ axes, random }: InputRequest): Tensors => {
    const { parts, rows, valueDim } = axes as Axes;
    const partOut = random.values(parts * rows * valueDim, () => random.normal());
    const partLse = random.values(parts * rows, () => spread * random.normal());
    for (let i = 0; i < parts * rows; i++) {
      if (random.uniform() >= empty) continue;
      partLse[i] = Number.NEGATIVE_INFINITY;
      partOut.fill(Number.NaN, i * valueDim, (i + 1) * valueDim);
    }
    return { partOut, partLse };
  };

const special = (request: InputRequest): Tensors => {
  const { rows } = request.axes as Axes;
  const inputs = states(1, 0)(request) as unknown as MergeTensors;
  // Row by row: a part that is not a number, one that outweighs everything, all parts far down, equal parts.
  inputs.partLse[0] = Number.NaN;
  inputs.partLse[rows + 1] = 3e38;
  for (let p = 0; p < (request.axes.parts as number); p++) {
    inputs.partLse[p * rows + 2] = -3e38;
    inputs.partLse[p * rows + 3] = 7;
  }
  return inputs as unknown as Tensors;
};

const sizes = (parts: number, rows: number, valueDim: number): Axes => ({ parts, rows, valueDim });

const heads: Case[] = [1, 3, 64, 80, 96, 128, 256].map((valueDim) => ({
  name: `values of ${valueDim}`,
  axes: sizes(4, 6, valueDim),
  inputs: states(2, 0),
}));

export const cases: OpCases = {
  cases: [
    ...heads,
    { name: "one part", axes: sizes(1, 5, 33), inputs: states(3, 0) },
    { name: "two parts far apart", axes: sizes(2, 9, 17), inputs: states(60, 0), seeds: 3 },
    { name: "empty parts", axes: sizes(5, 40, 12), inputs: states(2, 0.5), seeds: 3 },
    { name: "nothing but empty parts", axes: sizes(3, 4, 8), inputs: states(1, 1), seeds: 1 },
    { name: "many parts", axes: sizes(300, 3, 20), inputs: states(1, 0.1) },
    { name: "no rows", axes: sizes(2, 0, 8), inputs: states(1, 0), seeds: 1 },
    { name: "fewer parts at run time", axes: sizes(6, 7, 40), live: { parts: 4 }, inputs: states(2, 0.2) },
    { name: "special values", axes: sizes(3, 4, 19), inputs: special, seeds: 3 },
  ],
  mutants: [
    {
      name: "scale off by 1 %",
      run: (call, op) => op.reference(withLse(call, (lse) => lse * 1.01)),
      blind: ({ axes, inputs }) => (shows(axes as Axes, inputs, (lse) => Math.abs(lse) > 0.01) ? undefined : "no state weighs anything"),
    },
    {
      name: "last part dropped",
      run: (call, op) =>
        call.axes.parts === 1
          ? op.reference(withLse(call, () => Number.NEGATIVE_INFINITY))
          : op.reference({ ...call, axes: { ...call.axes, parts: (call.axes.parts as number) - 1 } }),
      blind: ({ axes, inputs }) => {
        const { parts, rows } = axes as Axes;
        const { partLse } = inputs as unknown as MergeTensors;
        for (let row = 0; row < rows; row++) {
          const all = Array.from({ length: parts }, (_, p) => partLse[p * rows + row] as number);
          if (all.some(Number.isNaN) || all.at(-1) === Number.NEGATIVE_INFINITY) continue;
          if ((all.at(-1) as number) > Math.max(...all) - 5) return undefined;
        }
        return "the last part weighs nothing";
      },
    },
    {
      name: "rows swapped",
      run(call, op) {
        op.reference(call);
        const { rows, valueDim } = call.axes as Axes;
        if (rows < 2) return;
        const { out, lse } = call.tensors as MergeTensors;
        const first = out.slice(0, valueDim);
        out.copyWithin(0, valueDim, 2 * valueDim);
        out.set(first, valueDim);
        [lse[0], lse[1]] = [lse[1] as number, lse[0] as number];
      },
      blind: ({ axes, expected }) => {
        const { rows } = axes as Axes;
        const [a, b] = expected.lse as unknown as [number, number];
        return rows < 2 || Object.is(a, b) ? "there are no two rows that differ" : undefined;
      },
    },
    {
      name: "parts weighed alike",
      run: (call, op) => op.reference(withLse(call, (lse) => (lse === Number.NEGATIVE_INFINITY ? lse : 0))),
      blind: ({ axes, inputs }) => (shows(axes as Axes, inputs, (lse) => Math.abs(lse) > 0.01) ? undefined : "no state weighs anything"),
    },
  ],
  laws: [
    {
      name: "the order of the parts only changes roundings",
      axes: sizes(5, 12, 24),
      async check(run, request) {
        const { parts, rows, valueDim } = request.axes as Axes;
        const given = states(2, 0.2)(request) as unknown as MergeTensors;
        const turned = { partOut: new Float32Array(given.partOut.length), partLse: new Float32Array(given.partLse.length) };
        for (let p = 0; p < parts; p++) {
          const to = (p + 2) % parts;
          turned.partOut.set(given.partOut.subarray(p * rows * valueDim, (p + 1) * rows * valueDim), to * rows * valueDim);
          turned.partLse.set(given.partLse.subarray(p * rows, (p + 1) * rows), to * rows);
        }
        const [a, b] = [await run(request.axes, {}, given as unknown as Tensors), await run(request.axes, {}, turned)];
        const far = (a.out as Float32Array).findIndex((value, i) => Math.abs(value - ((b.out as Float32Array)[i] as number)) > 1e-5);
        return far < 0 ? undefined : `out[${far}] is ${a.out?.[far]}, then ${b.out?.[far]}`;
      },
    },
  ],
  bench: [
    {
      name: "16 parts of 256 heads x 128",
      calibrate: true,
      axes: sizes(16, 256, 128),
      variants: [{}],
      inputs: states(1, 0),
    },
  ],
};

function withLse(call: ReferenceCall, change: (lse: number) => number): ReferenceCall {
  const { partLse } = call.tensors as MergeTensors;
  return { ...call, tensors: { ...call.tensors, partLse: partLse.map(change) } };
}

/** Whether some row has a number for its answer and a part of which this holds. */
function shows({ parts, rows }: Axes, inputs: Tensors, holds: (lse: number) => boolean): boolean {
  const { partLse } = inputs as unknown as MergeTensors;
  for (let row = 0; row < rows; row++) {
    const all = Array.from({ length: parts }, (_, p) => partLse[p * rows + row] as number);
    if (!all.some(Number.isNaN) && all.some((lse) => Number.isFinite(lse) && Math.abs(lse) < 1e30 && holds(lse))) return true;
  }
  return false;
}
