import type { HostArray } from "./dtype.js";
import { describe, HotsetError } from "./errors.js";
import { solveAxes } from "./op/axes.js";
import type { Op, Port, TensorPort } from "./op/define.js";
import type { AxesOf, TensorValue, VariantOf } from "./op/types.js";
import { variantValues } from "./op/variant.js";
import { makePlan, type Plan } from "./plan.js";
import type { Machine } from "./select.js";
import { asBits, type Operand, operand, Tensor } from "./tensor.js";

/** Plans kept of each op; the oldest is dropped. Serving a few models and batch sizes needs a handful. */
const planLimit = 32;

/** A plan, and what the arguments of a call of the same form mean to it. */
interface Known {
  readonly form: Form;
  readonly plan: Plan;
  /** Row pitches that were given. */
  readonly pitch: Readonly<Record<string, number>>;
}

export class OneCall {
  readonly #machine: Machine;
  /** Latest first. */
  readonly #known = new Map<Op, Known[]>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  run(op: Op, args: Record<string, unknown>): Record<string, unknown> {
    const known = this.#find(op, args);
    const tensors: Record<string, HostArray> = {};
    const scalars: Record<string, number> = {};
    let resident = false;
    for (const name in args) {
      const value = args[name];
      if (value === undefined) continue;
      const kind = op.ports[name]?.kind;
      if (kind === "scalar") scalars[name] = numberOf(op, name, value);
      if (kind !== "tensor") continue;
      tensors[name] = arrayOf(value);
      resident ||= value instanceof Tensor;
    }
    const outputs = known.plan.runOnce(tensors, known.pitch, scalars, resident);
    return { ...outputs, backend: known.plan.backend, kernel: known.plan.kernel };
  }

  /** Arguments of the same kinds and sizes were solved and checked before. */
  #find(op: Op, args: Record<string, unknown>): Known {
    const list = this.#known.get(op) ?? [];
    if (list.length === 0) this.#known.set(op, list);
    for (let i = 0; i < list.length; i++) {
      const known = list[i] as Known;
      if (!fits(known.form, args)) continue;
      if (i > 0) list.unshift(...list.splice(i, 1));
      return known;
    }
    const known = this.#solve(op, args);
    list.unshift(known);
    if (list.length > planLimit) list.pop();
    return known;
  }

  #solve(op: Op, args: Record<string, unknown>): Known {
    const { backend, ...values } = args as { backend?: string } & Record<string, unknown>;
    const { inputs, outputs, axes, variant } = sort(op, values);
    const operands: Record<string, Operand> = {};
    const pitch: Record<string, number> = {};
    for (const [name, value] of Object.entries({ ...inputs, ...outputs })) {
      const found = operand(op.id, name, value, (op.ports[name] as TensorPort).dtypes);
      operands[name] = found;
      if (found.rowPitch !== undefined) pitch[name] = found.rowPitch;
      const port = op.ports[name] as TensorPort;
      if (variantValues(port)) variant[name] = port.dtypes.length > 1 ? found.dtype : true;
    }
    const solved = solveAxes(op, axes, operands);
    const resident = Object.keys(operands).filter((name) => (inputs[name] ?? outputs[name]) instanceof Tensor);
    const plan = makePlan(this.#machine, op, solved as AxesOf<Op>, variant as VariantOf<Op>, { backend, resident });
    // Also finds what is missing, or does not fit the variant.
    plan.checkOperands({ ...inputs, ...outputs });
    return { form: formOf(op, args), plan, pitch };
  }
}

/** The kinds and sizes of the arguments, in the order given; not their contents. */
type Form = readonly Part[];
interface Part {
  readonly name: string;
  /** An option, an axis or a backend: the value itself. A scalar may be any. */
  readonly value?: unknown;
  readonly scalar?: boolean;
  readonly array?: ArrayForm;
  /** Of an array with its dtype and shape, or a tensor in some backend's memory. */
  readonly tagged?: {
    readonly data: ArrayForm;
    readonly dtype: string | undefined;
    readonly shape: readonly number[] | undefined;
    readonly rowPitch: number | undefined;
    readonly backend: string | undefined;
  };
}
interface ArrayForm {
  readonly kind: unknown;
  readonly length: number;
}

function formOf(op: Op, args: Record<string, unknown>): Form {
  const parts: Part[] = [];
  for (const name in args) {
    const value = args[name];
    if (value === undefined) continue;
    if (op.ports[name]?.kind === "scalar") parts.push({ name, scalar: true });
    else if (typeof value !== "object" || value === null) parts.push({ name, value });
    else if (ArrayBuffer.isView(value)) parts.push({ name, array: sizeOf(value as HostArray) });
    else {
      const { data, dtype, shape, rowPitch, backend } = value as TensorValue & { backend?: string };
      parts.push({ name, tagged: { data: sizeOf(data), dtype, shape: shape && [...shape], rowPitch, backend } });
    }
  }
  return parts;
}

const sizeOf = (view: HostArray): ArrayForm => ({ kind: view.constructor, length: view.length });

function fits(form: Form, args: Record<string, unknown>): boolean {
  let at = 0;
  for (const name in args) {
    const value = args[name];
    if (value === undefined) continue;
    const part = form[at++];
    if (part === undefined || part.name !== name) return false;
    if (part.scalar) continue;
    if (typeof value !== "object" || value === null) {
      if (part.array || part.tagged || part.value !== value) return false;
    } else if (part.array) {
      if (!ArrayBuffer.isView(value) || !sameArray(part.array, value as HostArray)) return false;
    } else if (!part.tagged || !sameTagged(part.tagged, value as TensorValue)) return false;
  }
  return at === form.length;
}

const sameArray = (form: ArrayForm, value: HostArray): boolean => value.length === form.length && value.constructor === form.kind;

function sameTagged(form: NonNullable<Part["tagged"]>, value: TensorValue & { backend?: string }): boolean {
  if (ArrayBuffer.isView(value) || value.dtype !== form.dtype || value.rowPitch !== form.rowPitch || value.backend !== form.backend)
    return false;
  if (!ArrayBuffer.isView(value.data) || !sameArray(form.data, value.data)) return false;
  const { shape } = value;
  if (shape === undefined || form.shape === undefined) return shape === form.shape;
  return shape.length === form.shape.length && form.shape.every((size, i) => size === shape[i]);
}

function arrayOf(value: unknown): HostArray {
  const data = ArrayBuffer.isView(value) ? value : (value as TensorValue).data;
  return asBits(data as HostArray);
}

interface Sorted {
  inputs: Record<string, unknown>;
  outputs: Record<string, unknown>;
  scalars: Record<string, number>;
  axes: Record<string, number>;
  variant: Record<string, string | boolean | number>;
}

function sort(op: Op, values: Record<string, unknown>): Sorted {
  const sorted: Sorted = { inputs: {}, outputs: {}, scalars: {}, axes: {}, variant: {} };
  for (const name in values) {
    const value = values[name];
    if (value === undefined) continue;
    const port: Port | undefined = op.ports[name];
    if (port?.kind === "tensor") sorted[port.role === "out" ? "outputs" : "inputs"][name] = value;
    else if (port?.kind === "option") sorted.variant[name] = value as string;
    else if (port?.kind === "scalar") sorted.scalars[name] = numberOf(op, name, value);
    else if (op.axes[name]) sorted.axes[name] = numberOf(op, name, value);
    else
      throw new HotsetError("argument", {
        where: op.id,
        expected: `${[...Object.keys(op.ports), ...Object.keys(op.axes)].join(", ")} or backend`,
        received: JSON.stringify(name),
      });
  }
  return sorted;
}

function numberOf(op: Op, name: string, value: unknown): number {
  if (typeof value !== "number")
    throw new HotsetError("argument", { where: op.id, expected: `${name} to be a number`, received: describe(value) });
  return value;
}
