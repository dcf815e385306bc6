import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changing, withTensors } from "../../testing/changed-call.js";
import type { RmsNormTensors } from "./reference.js";

type Axes = Record<"tokens" | "dim", number>;

const inputs =
  (spread = 1) =>
  ({ axes, random }: InputRequest): Tensors => {
    const { tokens, dim } = axes as Axes;
    return { x: random.values(tokens * dim, () => spread * random.normal()), weight: random.values(dim, () => 1 + random.normal()) };
  };

const special = (request: InputRequest): Tensors => {
  const made = inputs()(request) as unknown as RmsNormTensors;
  const { dim } = request.axes as Axes;
  made.x[dim - 1] = Number.NaN;
  made.x[dim] = Number.NEGATIVE_INFINITY;
  made.x.fill(0, 2 * dim, 3 * dim);
  return made as unknown as Tensors;
};

const sizes = (tokens: number, dim: number): Axes => ({ tokens, dim });
const of = (name: string, axes: Axes, extra: Partial<Case> = {}): Case => ({ name, axes, inputs: inputs(), ...extra });
const tensorsOf = (call: { tensors: unknown }): RmsNormTensors => call.tensors as RmsNormTensors;

export const cases: OpCases = {
  cases: [
    ...[1, 3, 7, 8, 17, 31, 64, 288].map((dim) => of(`vectors of ${dim}`, sizes(3, dim))),
    of("many tokens", sizes(70, 20), { seeds: 1 }),
    of("long vectors", sizes(2, 4100), { seeds: 1 }),
    of("small values beside epsilon", sizes(3, 33), { inputs: inputs(1e-3) }),
    of("another epsilon", sizes(3, 40), { scalars: { epsilon: 0.25 } }),
    of("large values", sizes(3, 24), { inputs: inputs(1e15) }),
    of("no tokens", sizes(0, 8), { seeds: 1 }),
    of("fewer tokens at run time", sizes(6, 21), { live: { tokens: 4 } }),
    of("special values", sizes(4, 21), { inputs: special }),
  ],
  mutants: [
    changing("epsilon forgotten", "the mean square outweighs epsilon", (call) => ({ ...call, scalars: { epsilon: 0 } })),
    changing("weight forgotten", "nothing is normalised", (call) => withTensors(call, { weight: tensorsOf(call).weight.map(() => 1) })),
    changing("weights off by 1 %", "nothing is normalised", (call) =>
      withTensors(call, { weight: tensorsOf(call).weight.map((value) => value * 1.01) }),
    ),
    changing("last component left out of the mean", "the last components are as nothing", (call) => {
      const { tokens, dim } = call.axes as Axes;
      const x = tensorsOf(call).x.slice();
      for (let t = 0; t < tokens; t++) x[(t + 1) * dim - 1] = 0;
      return withTensors(call, { x });
    }),
    changing("two tokens swapped", "there are no two tokens that differ", (call) => {
      const { tokens, dim } = call.axes as Axes;
      if (tokens < 2) return call;
      const x = tensorsOf(call).x.slice();
      const first = x.slice(0, dim);
      x.copyWithin(0, dim, 2 * dim);
      x.set(first, dim);
      return withTensors(call, { x });
    }),
  ],
  laws: [],
  bench: [
    {
      name: "64 tokens x 4096",
      calibrate: true,
      axes: sizes(64, 4096),
      variants: [{}],
      inputs: inputs(),
    },
  ],
};
