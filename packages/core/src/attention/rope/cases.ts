import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changing, withTensors } from "../../testing/changed-call.js";
import { spread } from "../../testing/spread.js";
import type { RopeAxes, RopeTensors } from "./reference.js";

const inputs =
  (wide = 2000) =>
  ({ axes, variant, random }: InputRequest): Tensors => {
    const { tokens, heads, headDim, rotaryPairs } = axes as RopeAxes;
    return {
      x: random.values(tokens * heads * headDim, () => random.normal()),
      positions: Int32Array.from({ length: tokens }, () => random.below(wide)),
      ...(variant.frequencies ? { frequencies: random.values(rotaryPairs, () => random.uniform()) } : {}),
    };
  };

const special = (request: InputRequest): Tensors => {
  const made = inputs()(request) as unknown as RopeTensors;
  made.x[0] = Number.NaN;
  made.positions[1] = -7;
  made.positions[2] = 0;
  made.positions[3] = 2 ** 31 - 1;
  made.positions[4] = -(2 ** 31);
  return made as unknown as Tensors;
};

const sizes = (tokens: number, heads: number, headDim: number, rotaryPairs = headDim >> 1): RopeAxes => ({
  tokens,
  heads,
  headDim,
  rotaryPairs,
});
const of = (name: string, axes: RopeAxes, extra: Partial<Case> = {}): Case => ({ name, axes, inputs: inputs(), seeds: 1, ...extra });
const tensorsOf = (call: { tensors: unknown }): RopeTensors => call.tensors as RopeTensors;

export const cases: OpCases = {
  cases: spread(
    [
      ...[2, 3, 8, 18, 34, 64, 128].map((headDim) => of(`heads of ${headDim}`, sizes(3, 2, headDim))),
      of("a part of each head", sizes(4, 3, 24, 8)),
      of("one pair of a head", sizes(4, 2, 21, 1)),
      of("one head", sizes(5, 1, 16)),
      of("many tokens", sizes(150, 1, 8)),
      of("another theta", sizes(4, 2, 32), { scalars: { theta: 500000 } }),
      of("positions of a million", sizes(4, 2, 16), { inputs: inputs(1e6) }),
      of("no tokens", sizes(0, 2, 8)),
      of("fewer tokens at run time", sizes(6, 2, 12), { live: { tokens: 4 } }),
      of("special values", sizes(6, 2, 10), { inputs: special }),
    ],
    2,
  ),
  mutants: [
    changing("positions off by one", "nothing turns", (call) =>
      withTensors(call, { positions: tensorsOf(call).positions.map((p) => p + 1) }),
    ),
    changing("turned the other way", "nothing turns", (call) => withTensors(call, { positions: tensorsOf(call).positions.map((p) => -p) })),
    changing("pairs taken the other way", "there is one pair only", (call) => ({
      ...call,
      variant: { ...call.variant, pairs: call.variant.pairs === "half" ? "interleaved" : "half" },
    })),
    {
      ...changing("theta off by 1 %", "one frequency only, which is 1", (call) => ({
        ...call,
        scalars: { theta: (call.scalars.theta as number) * 1.01 },
      })),
      variants: ({ frequencies }) => frequencies === false,
    },
    {
      ...changing("frequencies ignored", "nothing turns", (call) => withTensors(call, { frequencies: undefined })),
      variants: ({ frequencies }) => frequencies === true,
    },
    changing("all of a head turned", "no head is longer than what is turned", (call) => {
      const { headDim } = call.axes as RopeAxes;
      return {
        ...call,
        axes: { ...call.axes, rotaryPairs: headDim >> 1 },
        tensors: { ...call.tensors, frequencies: longer(tensorsOf(call).frequencies, headDim >> 1) },
      };
    }),
  ],
  laws: [],
  bench: [
    {
      name: "64 tokens, 32 heads x 128",
      calibrate: true,
      axes: sizes(64, 32, 128),
      variants: (["interleaved", "half"] as const).map((pairs) => ({ pairs, frequencies: false })),
      inputs: inputs(),
    },
  ],
};

const longer = (frequencies: Float32Array | undefined, length: number): Float32Array | undefined =>
  frequencies && Float32Array.from({ length }, (_, i) => frequencies[i] ?? 0.5);
