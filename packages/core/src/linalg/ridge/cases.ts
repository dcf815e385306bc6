import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changedCall, withTensors } from "../../testing/changed-call.js";
import type { RidgeAxes, RidgeTensors } from "./reference.js";

const sizes = (rows: number, features: number, outputs: number): RidgeAxes => ({ rows, features, outputs });

/** Features and a linear map of them with noise. */
function linear({ axes, random }: InputRequest): Tensors {
  const { rows, features, outputs } = axes as RidgeAxes;
  const x = random.values(rows * features, () => random.normal());
  const map = random.values(features * outputs, () => random.normal());
  const y = random.values(rows * outputs, () => random.normal());
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < features; i++)
      for (let c = 0; c < outputs; c++)
        y[row * outputs + c] = (y[row * outputs + c] as number) + (x[row * features + i] as number) * (map[i * outputs + c] as number);
  return { x, y } as unknown as Tensors;
}

/** Frequencies, sets and a bias, as routing predictors have them: many zeros, all of one sign. */
function sparse({ axes, random }: InputRequest): Tensors {
  const { rows, features, outputs } = axes as RidgeAxes;
  const x = random.values(rows * features, () => (random.uniform() < 0.7 ? 0 : random.uniform()));
  for (let row = 0; row < rows; row++) x[row * features] = 1;
  return { x, y: random.values(rows * outputs, () => (random.uniform() < 0.2 ? 1 : 0)) } as unknown as Tensors;
}

const changed =
  (inputs: Case["inputs"], change: (tensors: RidgeTensors, axes: RidgeAxes) => void): Case["inputs"] =>
  (request) => {
    const tensors = inputs(request);
    change(tensors as unknown as RidgeTensors, request.axes as RidgeAxes);
    return tensors;
  };

export const cases: OpCases = {
  cases: [
    { name: "one of each", axes: sizes(1, 1, 1), inputs: linear },
    { name: "fewer rows than features", axes: sizes(5, 12, 3), inputs: linear },
    { name: "more outputs than features", axes: sizes(40, 3, 37), inputs: linear },
    { name: "features and outputs that fill no vector", axes: sizes(131, 17, 5), inputs: linear },
    { name: "rows around a run", axes: sizes(257, 9, 8), inputs: linear },
    { name: "rows of several tasks", axes: sizes(1300, 23, 6), inputs: sparse },
    { name: "sets, frequencies and a bias", axes: sizes(400, 33, 16), inputs: sparse, scalars: { penalty: 20 } },
    { name: "a small penalty", axes: sizes(200, 11, 4), inputs: linear, scalars: { penalty: 1e-3 } },
    { name: "a large penalty", axes: sizes(60, 14, 7), inputs: linear, scalars: { penalty: 1e6 } },
    { name: "no rows", axes: sizes(0, 6, 4), inputs: linear, seeds: 1 },
    { name: "fewer rows at run time", axes: sizes(300, 10, 9), live: { rows: 141 }, inputs: linear },
    {
      name: "a feature that is not a number",
      axes: sizes(20, 7, 3),
      inputs: changed(linear, ({ x }) => {
        x[9] = Number.NaN;
      }),
      seeds: 1,
    },
    {
      name: "an infinite feature",
      axes: sizes(20, 7, 3),
      inputs: changed(linear, ({ x }) => {
        x[6] = Number.NEGATIVE_INFINITY;
      }),
      seeds: 1,
    },
    {
      name: "an output that is not a number",
      axes: sizes(150, 7, 21),
      inputs: changed(linear, ({ y }, { outputs }) => {
        y[3 * outputs + 2] = Number.NaN;
      }),
      seeds: 1,
    },
  ],
  mutants: [
    changedCall("penalty off by 1 %", "the penalty is small beside the sums", (call) => ({
      ...call,
      scalars: { ...call.scalars, penalty: (call.scalars.penalty as number) * 1.01 },
    })),
    changedCall("last row dropped", "the last row changes nothing that roundings may not", (call) => ({
      ...call,
      axes: { ...call.axes, rows: Math.max(0, (call.axes.rows as number) - 1) },
    })),
    changedCall("first two features swapped", "there are no two that differ", (call) => {
      const { rows, features } = call.axes as RidgeAxes;
      if (features < 2) return call;
      const x = (call.tensors as RidgeTensors).x.slice();
      for (let row = 0; row < rows; row++) {
        const at = row * features;
        [x[at], x[at + 1]] = [x[at + 1] as number, x[at] as number];
      }
      return withTensors(call, { x });
    }),
    changedCall("products of features dropped", "features have no products", (call) => {
      // As if the rows had one feature each: a diagonal X^T X.
      const { rows, features, outputs } = call.axes as RidgeAxes;
      const { x, y } = call.tensors as RidgeTensors;
      const apart = new Float32Array(rows * features * features);
      const repeated = new Float32Array(rows * features * outputs);
      for (let row = 0; row < rows; row++)
        for (let i = 0; i < features; i++) {
          apart[(row * features + i) * features + i] = x[row * features + i] as number;
          repeated.set(y.subarray(row * outputs, (row + 1) * outputs), (row * features + i) * outputs);
        }
      return { ...withTensors(call, { x: apart, y: repeated }), axes: { ...call.axes, rows: rows * features } };
    }),
  ],
  laws: [
    {
      name: "an output is fitted alone as it is among others",
      axes: sizes(90, 13, 5),
      async check(run, request) {
        const { rows, outputs, features } = axesOf(request);
        const given = linear(request) as unknown as RidgeTensors;
        const together = (await run(request.axes, {}, given as unknown as Tensors)).weights as Float32Array;
        const alone = Float32Array.from({ length: rows }, (_, row) => given.y[row * outputs + 2] as number);
        const one = (await run({ rows, features, outputs: 1 }, {}, { x: given.x, y: alone })).weights as Float32Array;
        const at = one.findIndex((value, i) => !Object.is(value, together[i * outputs + 2]));
        return at < 0 ? undefined : `weight ${at} is ${one[at]} alone and ${together[at * outputs + 2]} among others`;
      },
    },
  ],
  bench: [
    { name: "45,000 rows, 129 features, 32 outputs", calibrate: true, axes: sizes(45_000, 129, 32), variants: [{}], inputs: quick, sample },
    { name: "10,000 rows, 512 features, 64 outputs", axes: sizes(10_000, 512, 64), variants: [{}], inputs: quick, sample },
  ],
};

const axesOf = ({ axes }: InputRequest): RidgeAxes => axes as RidgeAxes;

function quick({ axes, random }: InputRequest): Tensors {
  const { rows, features, outputs } = axes as RidgeAxes;
  const pattern = random.values(4099, () => 2 * random.uniform() - 1);
  const filled = (length: number, step: number): Float32Array => {
    const out = new Float32Array(length);
    for (let i = 0; i < length; i++) out[i] = pattern[(i * step + (i >>> 12)) % 4099] as number;
    return out;
  };
  return { x: filled(rows * features, 7), y: filled(rows * outputs, 5) } as unknown as Tensors;
}

/** Its first output: the fit of one does not depend on the others. */
function sample(axes: InputRequest["axes"], inputs: Tensors) {
  const { rows, features, outputs } = axes as RidgeAxes;
  const { x, y } = inputs as unknown as RidgeTensors;
  return {
    axes: { rows, features, outputs: 1 },
    inputs: { x, y: Float32Array.from({ length: rows }, (_, row) => y[row * outputs] as number) },
    pick: ({ weights }: Tensors) => ({
      weights: Float32Array.from({ length: features }, (_, i) => (weights as Float32Array)[i * outputs] as number),
    }),
  };
}
