import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changing, withTensors } from "../../testing/changed-call.js";
import type { SampleTensors } from "./reference.js";

type Axes = Record<"rows" | "vocab", number>;

/** Logits of which many are equal when `steps` is given. */
const inputs =
  (spread = 2, steps = 0) =>
  ({ axes, random }: InputRequest): Tensors => {
    const { rows, vocab } = axes as Axes;
    const value = () => (steps ? Math.round(spread * steps * random.normal()) / steps : spread * random.normal());
    return {
      logits: random.values(rows * vocab, value),
      seeds: Uint32Array.from({ length: rows }, () => random.bits()),
      positions: Uint32Array.from({ length: rows }, () => random.below(100000)),
    };
  };

/** Row by row: NaNs, infinities of both signs, nothing to draw. */
const special = (request: InputRequest): Tensors => {
  const made = inputs()(request) as unknown as SampleTensors;
  const { vocab } = request.axes as Axes;
  made.logits.fill(Number.NaN, 0, vocab - 1);
  made.logits[vocab + 3] = Number.POSITIVE_INFINITY;
  made.logits[vocab + 7] = Number.POSITIVE_INFINITY;
  made.logits.fill(Number.NEGATIVE_INFINITY, 2 * vocab, 3 * vocab - 2);
  made.logits.fill(Number.NEGATIVE_INFINITY, 3 * vocab, 4 * vocab);
  made.logits.fill(Number.NaN, 4 * vocab, 5 * vocab);
  made.logits.fill(-1000, 5 * vocab, 5 * vocab + 3);
  return made as unknown as Tensors;
};

const of = (name: string, rows: number, vocab: number, scalars: Record<string, number>, extra: Partial<Case> = {}): Case => ({
  name,
  axes: { rows, vocab },
  inputs: inputs(),
  scalars,
  ...extra,
});
const tensorsOf = (call: { tensors: unknown }): SampleTensors => call.tensors as SampleTensors;
const withScalars = (name: string, reason: string, scalars: Record<string, number>) =>
  changing(name, reason, (call) => ({ ...call, scalars: { ...call.scalars, ...scalars } }));

export const cases: OpCases = {
  cases: [
    ...[1, 2, 7, 64, 301].map((vocab) => of(`${vocab} tokens, greedy`, 4, vocab, {})),
    ...[1, 2, 7, 64, 301].map((vocab) => of(`${vocab} tokens`, 8, vocab, { temperature: 1 })),
    of("equal logits, greedy", 9, 60, {}, { inputs: inputs(1, 1) }),
    of("equal logits", 9, 60, { temperature: 0.7, topK: 5 }, { inputs: inputs(1, 1) }),
    of("equal logits at the mass", 9, 60, { temperature: 1, topP: 0.6 }, { inputs: inputs(1, 1) }),
    of("a high temperature", 9, 50, { temperature: 5 }),
    of("a low temperature", 9, 50, { temperature: 0.01 }),
    of("the best of all", 5, 40, { temperature: 1, topK: 1 }),
    of("top-k", 12, 200, { temperature: 1, topK: 13 }),
    of("top-k beyond all", 6, 20, { temperature: 1, topK: 100 }),
    of("top-p", 12, 200, { temperature: 1, topP: 0.8 }),
    of("top-p of nothing", 6, 30, { temperature: 1, topP: 0 }),
    of("min-p", 12, 200, { temperature: 1, minP: 0.2 }),
    of("min-p of 1", 6, 30, { temperature: 1, minP: 1 }),
    of("all filters", 16, 300, { temperature: 0.8, topK: 60, topP: 0.9, minP: 0.05 }),
    of("far apart", 4, 40, { temperature: 1 }, { inputs: inputs(400) }),
    of("many tokens", 2, 5000, { temperature: 0.9, topP: 0.95 }, { seeds: 1 }),
    of("no rows", 0, 9, { temperature: 1 }, { seeds: 1 }),
    of("fewer rows at run time", 7, 33, { temperature: 1, topK: 9 }, { live: { rows: 4 } }),
    of("special values, greedy", 6, 12, {}, { inputs: special }),
    of("special values", 6, 12, { temperature: 1, topK: 8, topP: 0.9 }, { inputs: special }),
  ],
  mutants: [
    withScalars("temperature forgotten", "the draw is the same", { temperature: 1 }),
    withScalars("always greedy", "the draw is the same", { temperature: 0 }),
    withScalars("top-k forgotten", "nothing else is cut off by it", { topK: 0 }),
    withScalars("top-p forgotten", "nothing else is cut off by it", { topP: 1 }),
    withScalars("min-p forgotten", "nothing else is cut off by it", { minP: 0 }),
    changing("seeds ignored", "the draw is the same", (call) => withTensors(call, { seeds: tensorsOf(call).seeds.map(() => 0) })),
    changing("positions ignored", "the draw is the same", (call) =>
      withTensors(call, { positions: tensorsOf(call).positions.map(() => 0) }),
    ),
    changing("last token never drawn", "it is not drawn, nor kept", (call) => {
      const { rows, vocab } = call.axes as Axes;
      const logits = tensorsOf(call).logits.slice();
      for (let row = 0; row < rows; row++) logits[(row + 1) * vocab - 1] = Number.NEGATIVE_INFINITY;
      return withTensors(call, { logits });
    }),
    {
      name: "higher ids first",
      run: (call, op) => turned(call, op.reference),
      blind: ({ axes, inputs: given, expected, scalars, op, variant, pitch }) => {
        const ids = Int32Array.from(expected.ids as Int32Array);
        const kept = Uint32Array.from(expected.kept as Uint32Array);
        turned({ axes, variant, pitch, scalars, tensors: { ...given, ids, kept }, fail() {} }, op.reference);
        return ids.every((id, i) => id === expected.ids?.[i]) && kept.every((n, i) => n === expected.kept?.[i])
          ? "the draw is the same"
          : undefined;
      },
    },
  ],
  laws: [],
  bench: [
    {
      name: "32000 tokens, greedy",
      calibrate: true,
      axes: { rows: 1, vocab: 32000 },
      variants: [{}],
      inputs: inputs(),
    },
  ],
};

function turned(call: Parameters<typeof withTensors>[0], reference: (call: Parameters<typeof withTensors>[0]) => void): void {
  const { rows, vocab } = call.axes as Axes;
  const { logits, ids } = tensorsOf(call);
  const other = logits.slice();
  for (let row = 0; row < rows; row++) other.subarray(row * vocab, (row + 1) * vocab).reverse();
  reference(withTensors(call, { logits: other }));
  for (let row = 0; row < rows; row++) if ((ids[row] as number) >= 0) ids[row] = vocab - 1 - (ids[row] as number);
}
