/** Mutants that are the reference on something else: what most wrong kernels amount to. */
import { dtypes } from "../dtype.js";
import { portShape } from "../op/axes.js";
import type { AnyVariant, Op, ReferenceCall, TensorPort } from "../op/define.js";
import { presentTensors } from "../op/variant.js";
import type { Evidence, Mutant, Tensors } from "./case.js";
import { dtypeOf } from "./prepared.js";

/** The reference, given another call. `reason`: why it cannot be seen, where no answer moves by more than roundings may. */
export function changedCall(
  name: string,
  reason: string,
  change: (call: ReferenceCall) => ReferenceCall,
  variants?: (variant: AnyVariant) => boolean,
): Mutant {
  return {
    name,
    ...(variants ? { variants } : {}),
    run: (call, op) => op.reference(change(call)),
    blind: (evidence) => (shows(evidence, change) ? undefined : reason),
  };
}

/** The call with some tensors replaced. */
export const withTensors = (call: ReferenceCall, tensors: Readonly<Record<string, unknown>>): ReferenceCall => ({
  ...call,
  tensors: { ...call.tensors, ...tensors },
});

/** Counted apart from how the suite judges: from the op's roundings and the reference's own terms. */
function shows(evidence: Evidence, change: (call: ReferenceCall) => ReferenceCall): boolean {
  const { op, axes, variant } = evidence;
  const right = rerun(evidence, (call) => op.reference(call));
  const other = rerun(evidence, (call) => op.reference(change(call)));
  const rounding = op.rounding(axes, variant);
  return Object.keys(right.outputs).some((name) => {
    const [a, b] = [right.outputs[name] as Float32Array, other.outputs[name] as Float32Array];
    const steps = rounding[name] ?? 0;
    return a.some((value, i) => {
      const got = b[i] as number;
      if (value === got || (Number.isNaN(value) && Number.isNaN(got))) return false;
      if (steps === 0) return true;
      const size = (right.magnitude[name] as Float64Array)[i] as number;
      return !(Math.abs(value - got) <= (steps * size + Math.abs(value)) * 2 ** -24 + (steps + 1) * 2 ** -126);
    });
  });
}

function rerun(
  { op, axes, variant, pitch, scalars, inputs }: Evidence,
  kernel: (call: ReferenceCall) => void,
): { outputs: Tensors; magnitude: Record<string, Float64Array> } {
  const outputs = Object.fromEntries(outputNames(op, variant).map((name) => [name, blank(op, name, axes, variant)]));
  const magnitude = Object.fromEntries(Object.entries(outputs).map(([name, { length }]) => [name, new Float64Array(length)]));
  kernel({ axes, variant, pitch, scalars, magnitude, tensors: { ...inputs, ...outputs }, fail() {} });
  return { outputs, magnitude };
}

const outputNames = (op: Op, variant: AnyVariant): string[] =>
  presentTensors(op, variant).filter((name) => (op.ports[name] as TensorPort).role === "out");

const blank = (op: Op, name: string, axes: Evidence["axes"], variant: AnyVariant) =>
  new dtypes[dtypeOf(op, name, variant)].storage(portShape(op.ports[name] as TensorPort, axes).reduce((a, b) => a * b, 1));
