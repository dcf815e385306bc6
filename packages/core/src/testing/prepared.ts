/** A case made concrete: inputs, what the reference makes of them, and how results are judged. */
import type { Fault } from "../backend.js";
import { type DType, dtypes, type HostArray, rowLength, storageLength } from "../dtype.js";
import { portShape } from "../op/axes.js";
import type { AnyAxes, AnyVariant, Op, ReferenceCall, TensorPort } from "../op/define.js";
import { portDType, presentTensors, variantKey } from "../op/variant.js";
import type { Case, OpCases, Tensors } from "./case.js";
import { difference, toleranceOf } from "./compare.js";
import { Random } from "./random.js";

export interface Prepared {
  /** `op | variant | case | seed n`: what HOTSET_CASE takes. */
  readonly id: string;
  readonly op: Op;
  readonly test: Case;
  /** Capacities. */
  readonly axes: AnyAxes;
  /** Actual sizes. */
  readonly actual: AnyAxes;
  readonly variant: AnyVariant;
  readonly pitch: Readonly<Record<string, number>>;
  readonly scalars: Readonly<Record<string, number>>;
  /** In and inout tensors before the run, rows apart where the case says so. */
  readonly inputs: Tensors;
  /** Out and inout tensors after the reference; elements it did not write hold poison. */
  readonly expected: Tensors;
  readonly magnitude: Readonly<Record<string, Float64Array>>;
  readonly fault: Fault | undefined;
}

export function prepare(op: Op, test: Case, variant: AnyVariant, seed: number): Prepared {
  const id = `${op.id} | ${variantKey(op, variant)} | ${test.name} | seed ${seed}`;
  const random = new Random(id);
  const pitch: Record<string, number> = {};
  const inputs: Record<string, HostArray> = {};
  const made = test.inputs({ axes: test.axes, variant, random });
  for (const name of presentTensors(op, variant)) {
    const port = op.ports[name] as TensorPort;
    if (port.pitched)
      pitch[name] = rowLength(dtypeOf(op, name, variant), portShape(port, test.axes).at(-1) as number) + (test.extraPitch?.[name] ?? 0);
    if (port.role !== "out") inputs[name] = apart(op, name, variant, test, made[name] as HostArray);
  }
  const actual = { ...test.axes, ...test.live };
  const prepared = {
    id,
    op,
    test,
    axes: test.axes,
    actual,
    variant,
    pitch,
    scalars: scalarsOf(op, test),
    inputs,
    expected: {},
    magnitude: {},
    fault: undefined,
  };
  return { ...prepared, ...evaluate(prepared, (call) => op.reference(call)) };
}

/** Runs a kernel in the form of the reference on a case's inputs; outputs are poisoned first. */
export function evaluate(prepared: Prepared, kernel: (call: ReferenceCall) => void): Pick<Prepared, "expected" | "magnitude" | "fault"> {
  const { op, variant, axes } = prepared;
  const tensors: Record<string, HostArray> = {};
  const expected: Record<string, HostArray> = {};
  const magnitude: Record<string, Float64Array> = {};
  for (const name of presentTensors(op, variant)) {
    const port = op.ports[name] as TensorPort;
    const dtype = dtypeOf(op, name, variant);
    if (port.role === "in") tensors[name] = prepared.inputs[name] as HostArray;
    else
      tensors[name] = expected[name] =
        port.role === "out" ? poisoned(dtype, storageLength(dtype, portShape(port, axes))) : (prepared.inputs[name] as HostArray).slice();
    if (port.role !== "in") magnitude[name] = new Float64Array((tensors[name] as HostArray).length);
  }
  let fault: Fault | undefined;
  kernel({
    axes: prepared.actual,
    variant,
    scalars: prepared.scalars,
    tensors,
    pitch: prepared.pitch,
    magnitude,
    fail(port, index, value) {
      fault ??= { code: "index", port, index, value };
    },
  });
  return { expected, magnitude, fault };
}

/**
 * What is wrong with these outputs, or nothing. `exact`: equal bits, as every host backend owes for an exact op;
 * otherwise the op's own judgement or the computed tolerance.
 */
export function judge(prepared: Prepared, cases: OpCases, got: Tensors, exact: boolean): string | undefined {
  const { op, actual, variant } = prepared;
  const rounding = op.rounding(actual, variant);
  if (!exact && cases.accept) {
    const tolerance = (port: string, value: number, size: number): number =>
      toleranceOf(dtypeOf(op, port, variant), rounding[port] ?? 0, value, size);
    return cases.accept({ axes: actual, variant, inputs: prepared.inputs, pitch: prepared.pitch, got, tolerance });
  }
  for (const [name, expected] of Object.entries(prepared.expected)) {
    const steps = exact && op.exact ? 0 : (rounding[name] ?? 0);
    const wrong = difference(name, dtypeOf(op, name, variant), got[name] as HostArray, expected, steps, prepared.magnitude[name]);
    if (wrong) return wrong;
  }
  return undefined;
}

export const dtypeOf = (op: Op, name: string, variant: AnyVariant): DType => portDType(op, name, variant) as DType;

function poisoned(dtype: DType, length: number): HostArray {
  const view = new dtypes[dtype].storage(length);
  new Uint8Array(view.buffer).fill(0xff);
  return view;
}

/** Every scalar: as the case has it, else its default. */
export function scalarsOf(op: Op, test: Pick<Case, "axes" | "scalars">): Record<string, number> {
  const scalars: Record<string, number> = {};
  for (const [name, port] of Object.entries(op.ports)) {
    if (port.kind !== "scalar") continue;
    const value = test.scalars?.[name] ?? (typeof port.default === "function" ? port.default(test.axes) : port.default);
    scalars[name] = port.dtype === "f32" ? Math.fround(value as number) : (value as number);
  }
  return scalars;
}

/** Dense rows moved apart to the case's pitch; the gaps hold poison, which must not reach a result. */
function apart(op: Op, name: string, variant: AnyVariant, test: Case, dense: HostArray): HostArray {
  const extra = test.extraPitch?.[name] ?? 0;
  if (extra === 0) return dense;
  const dtype = dtypeOf(op, name, variant);
  const shape = portShape(op.ports[name] as TensorPort, test.axes);
  const row = rowLength(dtype, shape.at(-1) as number);
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const out = poisoned(dtype, Math.max(0, (rows - 1) * (row + extra) + row));
  for (let r = 0; r < rows; r++) (out as Float32Array).set((dense as Float32Array).subarray(r * row, (r + 1) * row), r * (row + extra));
  return out;
}
