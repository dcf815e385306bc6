import type { ReferenceCall } from "../../op/define.js";
import type { Case, Evidence, InputRequest, Mutant, OpCases, Tensors } from "../../testing/case.js";
import type { Random } from "../../testing/random.js";
import { type KeyHashesAxes, type KeyHashesTensors, reference } from "./reference.js";

const sizes = (bits: number, rest: Partial<KeyHashesAxes> = {}): KeyHashesAxes => ({
  tokens: 9,
  kvHeads: 2,
  bits,
  pages: 5,
  pageSize: 4,
  ...rest,
});

/** Tokens in slots of their own, every fifth in none. */
const spread =
  (value: (random: Random) => number = (random) => random.normal()) =>
  ({ axes, random }: InputRequest): Tensors => {
    const { tokens, kvHeads, bits, pages, pageSize } = axes as KeyHashesAxes;
    const free = Array.from({ length: pages * pageSize }, (_, slot) => slot);
    return {
      keys: random.values(tokens * kvHeads * bits, () => value(random)),
      slots: Int32Array.from({ length: tokens }, (_, t) => (t % 5 === 4 ? -1 : (free.splice(random.below(free.length), 1)[0] as number))),
      hashPages: Uint32Array.from({ length: (pages * kvHeads * pageSize * bits) / 32 }, () => random.bits()),
    };
  };

const special = (random: Random): number =>
  random.pick([0, -0, Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, 1e-45, -1e-45, 1, -1]);
const nowhere: Case["inputs"] = (request) => {
  const tensors = spread()(request);
  const { pages, pageSize } = request.axes as KeyHashesAxes;
  (tensors.slots as Int32Array).set([pages * pageSize, -2], 2);
  return tensors;
};

const tensorsOf = (call: ReferenceCall): KeyHashesTensors => call.tensors as KeyHashesTensors;

/** A wrong kernel; it cannot be seen where it writes the same. */
const wrong = (name: string, change: (call: ReferenceCall) => void): Mutant => ({
  name,
  run: change,
  blind({ axes, variant, pitch, scalars, inputs, expected }: Evidence) {
    const hashPages = (inputs.hashPages as Uint32Array).slice();
    change({ axes, variant, pitch, scalars, tensors: { ...inputs, hashPages }, fail() {} });
    return hashPages.every((word, i) => word === expected.hashPages?.[i]) ? "it writes the same bits" : undefined;
  },
});
const given = (call: ReferenceCall, tensors: Partial<KeyHashesTensors>): ReferenceCall => ({
  ...call,
  tensors: { ...tensorsOf(call), ...tensors },
});

export const cases: OpCases = {
  cases: [
    { name: "128 bits", axes: sizes(128), inputs: spread() },
    { name: "32 bits, one head", axes: sizes(32, { kvHeads: 1 }), inputs: spread() },
    { name: "96 bits, three heads", axes: sizes(96, { kvHeads: 3, pages: 3, pageSize: 7 }), inputs: spread() },
    { name: "zeros, NaN and infinities", axes: sizes(64), inputs: spread(special) },
    { name: "many tokens", axes: sizes(64, { tokens: 300, pages: 80 }), inputs: spread(), seeds: 1 },
    { name: "no tokens", axes: sizes(64, { tokens: 0 }), inputs: spread(), seeds: 1 },
    { name: "fewer tokens at run time", axes: sizes(64), live: { tokens: 4 }, inputs: spread(), seeds: 1 },
    { name: "slots that do not exist", axes: sizes(64), inputs: nowhere, seeds: 1 },
  ],
  mutants: [
    wrong("signs turned around", (call) => reference(given(call, { keys: tensorsOf(call).keys.map((x) => -x) }))),
    wrong("-0 taken for negative", (call) =>
      reference(given(call, { keys: tensorsOf(call).keys.map((x) => (Object.is(x, -0) ? -1 : x)) })),
    ),
    wrong("the last token dropped", (call) =>
      reference({ ...call, axes: { ...call.axes, tokens: Math.max(0, (call.axes.tokens as number) - 1) } }),
    ),
    wrong("every token in the first one's slot", (call) =>
      reference(given(call, { slots: tensorsOf(call).slots.map((slot) => (slot < 0 ? slot : (tensorsOf(call).slots[0] as number))) })),
    ),
  ],
  laws: [],
  bench: [
    {
      name: "1024 tokens, 8 heads, 128 bits",
      calibrate: true,
      axes: sizes(128, { tokens: 1024, kvHeads: 8, pages: 64, pageSize: 16 }),
      variants: [{}],
      inputs: ({ axes, random }) => {
        const { tokens, kvHeads, bits, pages, pageSize } = axes as KeyHashesAxes;
        return {
          keys: random.values(tokens * kvHeads * bits, () => random.uniform() - 0.5),
          slots: Int32Array.from({ length: tokens }, (_, t) => t),
          hashPages: new Uint32Array((pages * kvHeads * pageSize * bits) / 32),
        };
      },
    },
  ],
};
