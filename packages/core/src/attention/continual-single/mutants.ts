import type { ReferenceCall } from "../../op/define.js";
import type { Evidence, Mutant, Tensors } from "../../testing/case.js";
import { type RingAxes, type RingTensors, turnOf } from "./ring.js";

/** Wrong kernels of both continual ops. */
export const ringMutants: readonly Mutant[] = [
  wrong("scale off by 1 %", "no answer depends on the scale", (call, reference) =>
    reference({ ...call, scalars: { ...call.scalars, scale: (call.scalars.scale as number) * 1.01 } }),
  ),
  wrong("ring off by one", "the ring has one slot, or nothing arrives", (call, reference) => {
    const { window } = call.axes as RingAxes;
    const { steps } = call.tensors as RingTensors;
    const turns = Array.from(steps, (step) => turnOf(step, window));
    reference({ ...call, tensors: { ...call.tensors, steps: steps.map((step, i) => turns[i]?.next ?? step) } });
    for (let i = 0; i < (call.axes.streams as number); i++) steps[i] = turns[i]?.next ?? (steps[i] as number);
  }),
  wrong("newest key halved", "the newest weighs less than the roundings allowed", (call, reference) => {
    const { key } = call.tensors as RingTensors;
    reference({ ...call, tensors: { ...call.tensors, key: key.map((x) => x * 0.5) } });
  }),
  wrong("steps not counted", "nothing arrives", (call, reference) => {
    const steps = (call.tensors as RingTensors).steps.slice();
    reference({ ...call, tensors: { ...call.tensors, steps } });
  }),
];

/** A kernel that does it wrongly; a case is excused where its results are within the tolerance, as counted here. */
export function wrong(name: string, reason: string, run: (call: ReferenceCall, reference: (call: ReferenceCall) => void) => void): Mutant {
  return {
    name,
    run: (call, op) => run(call, op.reference),
    blind: (evidence) => (shows(evidence, (call) => run(call, evidence.op.reference)) ? undefined : reason),
  };
}

/** Whether a kernel's results are further off than roundings may be. */
function shows(evidence: Evidence, kernel: (call: ReferenceCall) => void): boolean {
  const right = rerun(evidence, evidence.op.reference);
  const other = rerun(evidence, kernel);
  const steps = evidence.op.rounding(evidence.axes, evidence.variant);
  return Object.keys(evidence.expected).some((name) => {
    const [a, b] = [right.tensors[name] as Float32Array, other.tensors[name] as Float32Array];
    return a.some((value, i) => {
      const got = b[i] as number;
      if (Object.is(value, got) || value === got) return false;
      const count = steps[name] ?? 0;
      const within = (count * (right.magnitude[name]?.[i] as number) + Math.abs(value)) * 2 ** -24 + (count + 1) * 2 ** -126;
      return count === 0 || !(Math.abs(value - got) <= within);
    });
  });
}

function rerun({ axes, variant, pitch, inputs, expected, scalars }: Evidence, kernel: (call: ReferenceCall) => void) {
  const tensors: Record<string, Tensors[string]> = {};
  const magnitude: Record<string, Float64Array> = {};
  for (const [name, data] of Object.entries({ ...expected, ...inputs })) {
    tensors[name] = name in inputs ? data.slice() : data.slice().fill(0 as never);
    magnitude[name] = new Float64Array(data.length);
  }
  kernel({ axes, variant, pitch, scalars, magnitude, tensors, fail() {} });
  return { tensors, magnitude };
}
