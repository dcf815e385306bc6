/** Mutants that are the reference given something else; and whether such a change can be seen at all. */
import { type DType, dtypes, type HostArray, storageLength } from "../dtype.js";
import { portShape } from "../op/axes.js";
import type { ReferenceCall, TensorPort } from "../op/define.js";
import { portDType, presentTensors } from "../op/variant.js";
import type { Evidence, Mutant } from "./case.js";

/** The reference of a changed call; `reason` is why a case cannot see it. */
export function changing(
  name: string,
  reason: string,
  change: (call: ReferenceCall) => ReferenceCall,
  variants?: Mutant["variants"],
): Mutant {
  return { ...wrongly(name, reason, (call, reference) => reference(change(call))), ...(variants ? { variants } : {}) };
}

/** A kernel that does the work wrongly, by way of the reference; `reason` is why a case cannot see it. */
export function wrongly(
  name: string,
  reason: string,
  work: (call: ReferenceCall, reference: (call: ReferenceCall) => void) => void,
): Mutant {
  return {
    name,
    run: (call, op) => work(call, op.reference),
    blind: (evidence) => (shows(evidence, (call) => work(call, evidence.op.reference)) ? undefined : reason),
  };
}

/** The call with some tensors replaced. */
export const withTensors = (call: ReferenceCall, tensors: Readonly<Record<string, HostArray | undefined>>): ReferenceCall => ({
  ...call,
  tensors: { ...call.tensors, ...tensors },
});

/**
 * Whether a wrong kernel moves an answer by more than the roundings of the op may, as counted here from the terms:
 * apart from how the suite judges.
 */
export function shows(evidence: Evidence, wrong: (call: ReferenceCall) => void): boolean {
  const right = rerun(evidence, evidence.op.reference);
  const other = rerun(evidence, wrong);
  const steps = evidence.op.exact ? {} : evidence.op.rounding(evidence.axes, evidence.variant);
  for (const [name, values] of Object.entries(right.tensors)) {
    const allowed = steps[name] ?? 0;
    for (let i = 0; i < values.length; i++) {
      const [a, b] = [Number(values[i]), Number(other.tensors[name]?.[i])];
      if (Object.is(a, b) || (allowed > 0 && a === b)) continue;
      const size = right.magnitude[name]?.[i] as number;
      const within = allowed === 0 ? 0 : (allowed * size + Math.abs(a)) * 2 ** -24 + (allowed + 1) * 2 ** -126;
      if (!(Math.abs(a - b) <= within)) return true;
    }
  }
  return false;
}

function rerun(evidence: Evidence, kernel: (call: ReferenceCall) => void) {
  const { op, axes, variant, pitch, inputs, scalars } = evidence;
  const tensors: Record<string, HostArray> = {};
  const magnitude: Record<string, Float64Array> = {};
  for (const name of presentTensors(op, variant)) {
    const port = op.ports[name] as TensorPort;
    if (port.role === "in") continue;
    const dtype = portDType(op, name, variant) as DType;
    tensors[name] =
      port.role === "inout" ? (inputs[name] as HostArray).slice() : new dtypes[dtype].storage(storageLength(dtype, portShape(port, axes)));
    magnitude[name] = new Float64Array(tensors[name].length);
  }
  kernel({ axes, variant, pitch, scalars, magnitude, tensors: { ...inputs, ...tensors }, fail() {} });
  return { tensors, magnitude };
}
