import type { ReferenceCall } from "../../op/define.js";
import type { Evidence, Mutant } from "../../testing/case.js";
import type { DecodeAxes, DecodeTensors } from "./reference.js";

/** Kernels that are wrong in the ways kernels are. */
export const mutants: readonly Mutant[] = [
  changing("scale off by 1 %", "no answer depends on the scale", (call) => ({
    ...call,
    scalars: { ...call.scalars, scale: (call.scalars.scale as number) * 1.01 },
  })),
  changing("last token dropped", "the last token weighs less than the roundings allowed", (call) =>
    withTensors(call, { lengths: tensorsOf(call).lengths.map((length) => Math.max(0, length - 1)) }),
  ),
  changing("a query head swapped", "no two heads of a sequence differ", (call) => {
    const { queryHeads, headDim } = call.axes as DecodeAxes;
    if (queryHeads < 2) return call;
    const queries = tensorsOf(call).queries.slice();
    for (let b = 0; b < (call.axes.batch as number); b++) {
      const at = b * queryHeads * headDim;
      const first = queries.slice(at, at + headDim);
      queries.copyWithin(at, at + headDim, at + 2 * headDim);
      queries.set(first, at + headDim);
    }
    return withTensors(call, { queries });
  }),
  {
    name: "KV heads dealt in turn",
    run(call, op) {
      dealt(call, op.reference);
    },
    blind: (evidence) => {
      const { queryHeads, kvHeads } = evidence.axes as DecodeAxes;
      if (kvHeads === 1 || kvHeads === queryHeads) return "each query head has the same KV head either way";
      return shows(evidence, (call) => dealt(call, evidence.op.reference)) ? undefined : "no answer depends on its KV head";
    },
  },
  changing("page table ignored", "the pages lie in order, or nothing is read from them", (call) => {
    const { batch, pages, maxPages } = call.axes as DecodeAxes;
    return withTensors(call, { pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => i % pages) });
  }),
  changing("window forgotten", "the window cuts nothing off", (call) => ({ ...call, scalars: { ...call.scalars, window: 0 } })),
  changing("window one token longer", "the window cuts nothing off, or what weighs less than the roundings allowed", (call) => ({
    ...call,
    scalars: { ...call.scalars, window: call.scalars.window ? (call.scalars.window as number) + 1 : 0 },
  })),
  changing("soft cap forgotten", "no logit comes near the cap", (call) => ({ ...call, scalars: { ...call.scalars, softCap: 0 } })),
  {
    ...changing("sinks forgotten", "nothing depends on the sinks", (call) => withTensors(call, { sinks: undefined })),
    variants: ({ sinks }) => sinks === true,
  },
  {
    ...changing("values scaled as keys", "nothing depends on the values' scales", (call) =>
      withTensors(call, { valueScale: tensorsOf(call).keyScale }),
    ),
    variants: ({ keyPages }) => keyPages === "i8",
  },
  {
    ...changing("key scales ignored", "nothing depends on the keys' scales", (call) => withTensors(call, { keyScale: undefined })),
    variants: ({ keyPages }) => keyPages === "i8",
  },
];

/** A reference that is given something else. */
export function changing(name: string, reason: string, change: (call: ReferenceCall) => ReferenceCall): Mutant {
  return {
    name,
    run: (call, op) => op.reference(change(call)),
    blind: (evidence) => (shows(evidence, (call) => evidence.op.reference(change(call))) ? undefined : reason),
  };
}

/**
 * Whether a wrong kernel moves an answer by more than the roundings of the op may, as counted here from the logits'
 * own terms: apart from how the suite judges.
 */
export function shows(evidence: Evidence, wrong: (call: ReferenceCall) => void): boolean {
  const right = rerun(evidence, evidence.op.reference);
  const other = rerun(evidence, wrong);
  const steps = evidence.op.rounding(evidence.axes, evidence.variant);
  for (const [name, expected] of Object.entries(right.outputs)) {
    const got = other.outputs[name] as Float32Array;
    for (let i = 0; i < expected.length; i++) {
      const [a, b, size] = [expected[i] as number, got[i] as number, right.magnitude[name]?.[i] as number];
      if (Object.is(a, b) || a === b || (Number.isNaN(a) && Number.isNaN(b))) continue;
      const within = ((steps[name] as number) * size + Math.abs(a)) * 2 ** -24 + ((steps[name] as number) + 1) * 2 ** -126;
      if (!(Math.abs(a - b) <= within)) return true;
    }
  }
  return false;
}

function rerun({ axes, variant, pitch, inputs, expected, scalars }: Evidence, kernel: (call: ReferenceCall) => void) {
  const empty = Object.entries(expected).map(([name, { length }]) => [name, new Float32Array(length)] as const);
  const outputs = Object.fromEntries(empty);
  const magnitude = Object.fromEntries(empty.map(([name, { length }]) => [name, new Float64Array(length)]));
  kernel({ axes, variant, pitch, scalars, magnitude, tensors: { ...inputs, ...outputs }, fail() {} });
  return { outputs, magnitude };
}

/** Query head h with KV head h mod kvHeads: the heads are put in that order, and the answers back. */
function dealt(call: ReferenceCall, reference: (call: ReferenceCall) => void): void {
  const { batch, queryHeads, kvHeads, headDim, valueDim } = call.axes as DecodeAxes;
  const { queries, sinks, slopes, out, lse } = tensorsOf(call);
  const group = queryHeads / kvHeads;
  const from = (h: number): number => (h % group) * kvHeads + Math.floor(h / group);
  const turned = queries.slice();
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < queryHeads; h++)
      turned.set(
        queries.subarray((b * queryHeads + from(h)) * headDim, (b * queryHeads + from(h) + 1) * headDim),
        (b * queryHeads + h) * headDim,
      );
  const turnedSlopes = slopes && Float32Array.from({ length: queryHeads }, (_, h) => slopes[from(h)] as number);
  const turnedSinks = sinks && Float32Array.from({ length: queryHeads }, (_, h) => sinks[from(h)] as number);
  const [turnedOut, turnedLse] = [out.slice(), lse.slice()];
  reference(withTensors(call, { queries: turned, sinks: turnedSinks, slopes: turnedSlopes, out: turnedOut, lse: turnedLse }));
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < queryHeads; h++) {
      const [at, to] = [b * queryHeads + h, b * queryHeads + from(h)];
      out.set(turnedOut.subarray(at * valueDim, (at + 1) * valueDim), to * valueDim);
      lse[to] = turnedLse[at] as number;
    }
  }
}

const tensorsOf = (call: ReferenceCall): DecodeTensors => call.tensors as DecodeTensors;
export const withTensors = (call: ReferenceCall, tensors: Readonly<Record<string, unknown>>): ReferenceCall => ({
  ...call,
  tensors: { ...call.tensors, ...tensors },
});
