import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changing, withTensors } from "../../testing/changed-call.js";
import type { LogprobAxes, LogprobTensors } from "./reference.js";

const inputs =
  (spread = 3, steps = 0) =>
  ({ axes, variant, random }: InputRequest): Tensors => {
    const { tokens, vocab } = axes as LogprobAxes;
    const value = () => (steps ? Math.round(spread * steps * random.normal()) / steps : spread * random.normal());
    return {
      logits: random.values(tokens * vocab, value),
      targets: Int32Array.from({ length: tokens }, () => random.below(vocab + 1) - 1),
      ...(variant.against ? { against: random.values(tokens * vocab, value) } : {}),
    };
  };

/** Row by row: a NaN, an infinity, nothing, tokens without weight in one or the other, a far logit. */
const special = (request: InputRequest): Tensors => {
  const made = inputs()(request) as unknown as LogprobTensors;
  const { vocab } = request.axes as LogprobAxes;
  made.logits[2] = Number.NaN;
  made.logits[vocab + 3] = Number.POSITIVE_INFINITY;
  made.logits.fill(Number.NEGATIVE_INFINITY, 2 * vocab, 3 * vocab);
  made.logits.fill(Number.NEGATIVE_INFINITY, 3 * vocab, 4 * vocab - 3);
  made.against?.fill(Number.NEGATIVE_INFINITY, 3 * vocab, 4 * vocab - 3);
  made.logits[4 * vocab] = -200;
  made.against?.fill(Number.NEGATIVE_INFINITY, 4 * vocab, 4 * vocab + 1);
  made.against?.fill(Number.NEGATIVE_INFINITY, 5 * vocab, 5 * vocab + 2);
  return made as unknown as Tensors;
};

const badTargets = (request: InputRequest): Tensors => {
  const made = inputs()(request) as unknown as LogprobTensors;
  made.targets[1] = (request.axes as LogprobAxes).vocab;
  made.targets[2] = -2;
  return made as unknown as Tensors;
};

const of = (name: string, tokens: number, vocab: number, k: number, extra: Partial<Case> = {}): Case => ({
  name,
  axes: { tokens, vocab, k },
  inputs: inputs(),
  ...extra,
});
const tensorsOf = (call: { tensors: unknown }): LogprobTensors => call.tensors as LogprobTensors;

export const cases: OpCases = {
  cases: [
    ...[1, 2, 7, 8, 31, 64].map((vocab) => of(`${vocab} tokens`, 5, vocab, Math.min(vocab, 3))),
    ...[255, 256, 257, 700].map((vocab) => of(`${vocab} tokens`, 3, vocab, 10, { seeds: 1 })),
    of("the best of all", 4, 40, 1),
    of("all in order", 4, 40, 40),
    of("none in order", 4, 40, 0),
    of("equal logits", 6, 60, 9, { inputs: inputs(1, 1) }),
    of("far apart", 5, 50, 5, { inputs: inputs(60) }),
    of("close together", 5, 50, 5, { inputs: inputs(0.01) }),
    of("many rows", 70, 20, 2, { seeds: 1 }),
    of("no rows", 0, 9, 2, { seeds: 1 }),
    of("fewer rows at run time", 7, 33, 3, { live: { tokens: 4 } }),
    of("special values", 6, 21, 4, { inputs: special }),
    of("targets outside", 5, 20, 2, { inputs: badTargets, seeds: 1 }),
  ],
  mutants: [
    changing("logits off by 1 %", "nothing depends on them", (call) =>
      withTensors(call, { logits: tensorsOf(call).logits.map((logit) => logit * 1.01) }),
    ),
    changing("the next token chosen", "there is no other", (call) => {
      const { vocab } = call.axes as LogprobAxes;
      return withTensors(call, {
        targets: tensorsOf(call).targets.map((id) => (id >= 0 && id < vocab ? (id + 1) % vocab : id)),
      });
    }),
    changing("last token forgotten", "it weighs nothing", (call) => {
      const { tokens, vocab } = call.axes as LogprobAxes;
      const logits = tensorsOf(call).logits.slice();
      for (let t = 0; t < tokens; t++) logits[(t + 1) * vocab - 1] = Number.NEGATIVE_INFINITY;
      return withTensors(call, { logits });
    }),
    changing("rows swapped", "there are no two rows that differ", (call) => {
      const { tokens, vocab } = call.axes as LogprobAxes;
      if (tokens < 2) return call;
      const logits = tensorsOf(call).logits.slice();
      const first = logits.slice(0, vocab);
      logits.copyWithin(0, vocab, 2 * vocab);
      logits.set(first, vocab);
      return withTensors(call, { logits });
    }),
    {
      ...changing("divergence the other way", "it is the same either way", (call) => {
        const { logits, against } = tensorsOf(call);
        return withTensors(call, { logits: against, against: logits });
      }),
      variants: ({ against }) => against === true,
    },
  ],
  laws: [],
  bench: [
    {
      name: "16 rows of 32000",
      calibrate: true,
      axes: { tokens: 16, vocab: 32000, k: 10 },
      variants: [{ against: false }, { against: true }],
      inputs: inputs(),
    },
  ],
};
