import { numberToF16 } from "../../half.js";
import type { ReferenceCall } from "../../op/define.js";
import type { Case, Evidence, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import type { AppendAxes, AppendTensors } from "./reference.js";

/** A cache that holds something, rows of all sizes, and slots by `place`. */
const inputs =
  (place: (request: InputRequest) => Int32Array, special = false) =>
  (request: InputRequest): Tensors => {
    const { axes, variant, random } = request;
    const { tokens, kvHeads, headDim, valueDim, pages, pageSize } = axes as AppendAxes;
    const row = (length: number) => {
      const out = random.values(length, () => random.normal() * 2 ** (random.below(9) - 4));
      if (special)
        for (let i = 0; i < length; i += 1 + random.below(12))
          out[i] = random.pick([Number.NaN, Number.POSITIVE_INFINITY, -3e38, 0, -0, 1e-40, 70000, 2 ** -25, 65519.9]);
      return out;
    };
    const rows = pages * kvHeads * pageSize;
    const cache = (length: number) => {
      if (variant.keyPages === "f32") return random.values(length, () => random.normal());
      if (variant.keyPages === "i8") return Int8Array.from({ length }, () => random.below(255) - 127);
      return Uint16Array.from({ length }, () => numberToF16(random.normal()));
    };
    const scales = () => random.values(rows, () => 0.01 + random.uniform());
    return {
      keys: row(tokens * kvHeads * headDim),
      values: row(tokens * kvHeads * valueDim),
      slots: place(request),
      keyPages: cache(rows * headDim),
      valuePages: cache(rows * valueDim),
      ...(variant.keyPages === "i8" ? { keyScale: scales(), valueScale: scales() } : {}),
    };
  };

/** Different slots in any order; some tokens go nowhere. */
const anywhere =
  (skipped: number) =>
  ({ axes, random }: InputRequest): Int32Array => {
    const { tokens, pages, pageSize } = axes as AppendAxes;
    const free = Array.from({ length: pages * pageSize }, (_, slot) => slot);
    return Int32Array.from({ length: tokens }, () =>
      random.uniform() < skipped ? -1 : (free.splice(random.below(free.length), 1)[0] as number),
    );
  };
const changed =
  (change: (slots: Int32Array, request: InputRequest) => void) =>
  (request: InputRequest): Int32Array => {
    const slots = anywhere(0)(request);
    change(slots, request);
    return slots;
  };

const sizes = (tokens: number, kvHeads: number, headDim: number, valueDim: number, pages: number, pageSize: number): AppendAxes => ({
  tokens,
  kvHeads,
  headDim,
  valueDim,
  pages,
  pageSize,
});

const list: Case[] = [
  { name: "one token, one head", axes: sizes(1, 1, 8, 8, 3, 4), inputs: inputs(anywhere(0)), seeds: 1 },
  { name: "odd sizes", axes: sizes(7, 3, 33, 17, 4, 5), inputs: inputs(anywhere(0)) },
  { name: "some go nowhere", axes: sizes(20, 2, 16, 19, 5, 7), inputs: inputs(anywhere(0.4)) },
  { name: "the whole cache", axes: sizes(24, 2, 64, 64, 6, 4), inputs: inputs(anywhere(0)), seeds: 1 },
  { name: "pages of one token", axes: sizes(4, 2, 12, 5, 9, 1), inputs: inputs(anywhere(0)), seeds: 1 },
  { name: "special values", axes: sizes(9, 2, 21, 8, 3, 4), inputs: inputs(anywhere(0), true), seeds: 3 },
  { name: "fewer tokens at run time", axes: sizes(9, 2, 8, 12, 4, 4), live: { tokens: 5 }, inputs: inputs(anywhere(0)), seeds: 1 },
  { name: "no tokens", axes: sizes(0, 2, 8, 8, 2, 4), inputs: inputs(anywhere(0)), seeds: 1 },
  {
    name: "a slot twice",
    axes: sizes(6, 2, 9, 9, 4, 4),
    inputs: inputs(
      changed((slots) => {
        slots[4] = slots[1] as number;
      }),
    ),
  },
  {
    name: "a slot that does not exist",
    axes: sizes(5, 1, 10, 6, 3, 4),
    inputs: inputs(
      changed((slots, { random }) => {
        slots[2] = random.pick([12, -2, 0x7fffffff, -0x80000000]);
      }),
    ),
    seeds: 3,
  },
];

/** Tokens that are written, in order. */
function landing({ axes, inputs: given }: Pick<Evidence, "axes" | "inputs">): number[] {
  const { tokens, pages, pageSize } = axes as AppendAxes;
  const slots = given.slots as Int32Array;
  const taken = new Set<number>();
  return Array.from({ length: tokens }, (_, t) => t).filter((t) => {
    const slot = slots[t] as number;
    if (slot < 0 || slot >= pages * pageSize || taken.has(slot)) return false;
    taken.add(slot);
    return true;
  });
}
const nothingLands = (evidence: Evidence): string | undefined => (landing(evidence).length ? undefined : "no token is written");
const withTensors = (call: ReferenceCall, tensors: Partial<AppendTensors>): ReferenceCall => ({
  ...call,
  tensors: { ...call.tensors, ...tensors },
});

export const cases: OpCases = {
  cases: list,
  mutants: [
    {
      name: "last token dropped",
      run: (call, op) => op.reference({ ...call, axes: { ...call.axes, tokens: Math.max(0, (call.axes.tokens as number) - 1) } }),
      blind: (evidence) => (landing(evidence).includes((evidence.axes.tokens as number) - 1) ? undefined : "the last token is not written"),
    },
    {
      name: "one slot further",
      run(call, op) {
        const { pages, pageSize } = call.axes as AppendAxes;
        const { slots } = call.tensors as AppendTensors;
        op.reference(
          withTensors(call, {
            slots: slots.map((slot) => (slot < 0 || slot >= pages * pageSize ? slot : (slot + 1) % (pages * pageSize))),
          }),
        );
      },
      blind: nothingLands,
    },
    {
      name: "values left out",
      run: (call, op) => op.reference(withTensors(call, { valuePages: (call.tensors as AppendTensors).valuePages.slice() })),
      blind: nothingLands,
    },
    {
      name: "keys halved",
      run: (call, op) => op.reference(withTensors(call, { keys: (call.tensors as AppendTensors).keys.map((x) => x / 2) })),
      blind: nothingLands,
    },
    {
      name: "the later of two tokens wins",
      run(call, op) {
        const slots = (call.tensors as AppendTensors).slots.slice();
        for (let t = 0; t < (call.axes.tokens as number); t++) if (slots.lastIndexOf(slots[t] as number) !== t) slots[t] = -1;
        op.reference(withTensors(call, { slots }));
      },
      blind({ axes, inputs: given }) {
        const { tokens, pages, pageSize } = axes as AppendAxes;
        const slots = (given.slots as Int32Array).subarray(0, tokens);
        const twice = slots.some((slot, t) => slot >= 0 && slot < pages * pageSize && slots.indexOf(slot) !== t);
        return twice ? undefined : "no slot is there twice";
      },
    },
  ],
  laws: [
    {
      name: "two calls write what one writes",
      axes: sizes(10, 2, 24, 8, 4, 4),
      async check(run, request) {
        const given = inputs(anywhere(0.1))(request) as unknown as AppendTensors;
        const axes = request.axes as AppendAxes;
        const part = (from: number, to: number, cache: Tensors): [AppendAxes, Tensors] => [
          { ...axes, tokens: to - from },
          {
            ...cache,
            keys: given.keys.slice(from * axes.kvHeads * axes.headDim, to * axes.kvHeads * axes.headDim),
            values: given.values.slice(from * axes.kvHeads * axes.valueDim, to * axes.kvHeads * axes.valueDim),
            slots: given.slots.slice(from, to),
          },
        ];
        const whole = await run(axes, request.variant, given as unknown as Tensors);
        const [firstAxes, first] = part(0, 4, given as unknown as Tensors);
        const [secondAxes, second] = part(4, 10, { ...(given as unknown as Tensors), ...(await run(firstAxes, request.variant, first)) });
        const both = await run(secondAxes, request.variant, second);
        for (const [name, data] of Object.entries(whole))
          if (data.some((value, i) => !Object.is(value, both[name]?.[i]))) return `${name} differs`;
        return undefined;
      },
    },
  ],
  bench: [
    {
      name: "512 tokens of 8 heads x 128",
      calibrate: true,
      axes: sizes(512, 8, 128, 128, 64, 16),
      variants: [{ keyPages: "f32" }, { keyPages: "f16" }, { keyPages: "i8" }],
      inputs: inputs(anywhere(0)),
    },
  ],
};
