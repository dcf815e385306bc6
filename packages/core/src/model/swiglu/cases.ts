import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changing, withTensors } from "../../testing/changed-call.js";
import type { SwigluTensors } from "./reference.js";

type Axes = Record<"tokens" | "dim", number>;

const inputs =
  (spread: number) =>
  ({ axes, random }: InputRequest): Tensors => {
    const { tokens, dim } = axes as Axes;
    return { gate: random.values(tokens * dim, () => spread * random.normal()), up: random.values(tokens * dim, () => random.normal()) };
  };

const special = (request: InputRequest): Tensors => {
  const made = inputs(1)(request) as unknown as SwigluTensors;
  const values = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, -0, 87.5, -87.4, -88, -103, 3e38, -3e38, 1e-40];
  made.gate.set(values);
  made.up.fill(2, 0, values.length);
  return made as unknown as Tensors;
};

const sizes = (tokens: number, dim: number): Axes => ({ tokens, dim });
const of = (name: string, axes: Axes, extra: Partial<Case> = {}): Case => ({ name, axes, inputs: inputs(3), ...extra });
const tensorsOf = (call: { tensors: unknown }): SwigluTensors => call.tensors as SwigluTensors;

export const cases: OpCases = {
  cases: [
    ...[1, 3, 7, 8, 17, 31, 172].map((dim) => of(`vectors of ${dim}`, sizes(3, dim))),
    of("several tasks", sizes(9, 4099), { seeds: 1 }),
    of("wide gates", sizes(4, 50), { inputs: inputs(40) }),
    of("no tokens", sizes(0, 8), { seeds: 1 }),
    of("fewer tokens at run time", sizes(6, 21), { live: { tokens: 5 } }),
    of("special values", sizes(2, 21), { inputs: special }),
  ],
  mutants: [
    changing("gate and up swapped", "nothing differs", (call) => withTensors(call, { gate: tensorsOf(call).up, up: tensorsOf(call).gate })),
    changing("the gate off by 1 %", "there is nothing", (call) => withTensors(call, { gate: tensorsOf(call).gate.map((x) => x * 1.01) })),
    changing("the sigmoid's slope of GELU", "there is nothing", (call) => {
      const { gate, up } = tensorsOf(call);
      return withTensors(call, {
        gate: gate.map((x) => x * 1.702),
        up: up.map((x) => x / 1.702),
      });
    }),
    changing("last component forgotten", "there is nothing", (call) => {
      const up = tensorsOf(call).up.slice();
      const { tokens, dim } = call.axes as Axes;
      for (let t = 0; t < tokens; t++) up[(t + 1) * dim - 1] = 0;
      return withTensors(call, { up });
    }),
  ],
  laws: [],
  bench: [{ name: "64 tokens x 4096", calibrate: true, axes: sizes(64, 4096), variants: [{}], inputs: inputs(3) }],
};
