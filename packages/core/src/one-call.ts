import type { HostArray } from "./dtype.js";
import { describe, HotsetError } from "./errors.js";
import { type Form, fits, formOf } from "./one-call-form.js";
import { solveAxes } from "./op/axes.js";
import type { Op, Port, TensorPort } from "./op/define.js";
import type { AxesOf, VariantOf } from "./op/types.js";
import { variantValues } from "./op/variant.js";
import { type Plan, preparePlan } from "./plan.js";
import type { Machine } from "./select.js";
import { arrayOf, asBits, type Operand, operand, Tensor } from "./tensor.js";

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

  run(op: Op, args: Record<string, unknown>): Record<string, unknown> | Promise<Record<string, unknown>> {
    const known = this.#find(op, args);
    return known ? this.#run(op, args, known) : this.#first(op, args);
  }

  #run(op: Op, args: Record<string, unknown>, known: Known): Record<string, unknown> | Promise<Record<string, unknown>> {
    return known.plan.onDevice ? this.#onDevice(op, args, known) : this.#onHost(op, args, known);
  }

  /** Arguments of the same kinds and sizes were solved and checked before. */
  #find(op: Op, args: Record<string, unknown>): Known | undefined {
    const list = this.#known.get(op);
    if (!list) return undefined;
    for (let i = 0; i < list.length; i++) {
      const known = list[i] as Known;
      if (!fits(known.form, args)) continue;
      if (i > 0) list.unshift(...list.splice(i, 1));
      return known;
    }
    return undefined;
  }

  async #first(op: Op, args: Record<string, unknown>): Promise<Record<string, unknown>> {
    const known = await this.#solve(op, args);
    const list = this.#known.get(op) ?? [];
    this.#known.set(op, list);
    list.unshift(known);
    if (list.length > planLimit) list.pop();
    return this.#run(op, args, known);
  }

  #onHost(op: Op, args: Record<string, unknown>, { plan, pitch }: Known): Record<string, unknown> {
    const tensors: Record<string, HostArray> = {};
    const scalars: Record<string, number> = {};
    let resident = false;
    for (const name in args) {
      const value = args[name];
      if (value === undefined) continue;
      const kind = op.ports[name]?.kind;
      if (kind === "scalar") scalars[name] = numberOf(op, name, value);
      if (kind !== "tensor") continue;
      tensors[name] = asBits(arrayOf(value));
      resident ||= value instanceof Tensor;
    }
    const outputs = plan.runOnce(tensors, pitch, scalars, resident);
    return { ...outputs, backend: plan.backend, kernel: plan.kernel };
  }

  async #onDevice(op: Op, args: Record<string, unknown>, { plan }: Known): Promise<Record<string, unknown>> {
    const { inputs, outputs, scalars } = sort(op, withoutBackend(args));
    const results = await plan.runOnceAsync(plan.readOperands({ ...inputs, ...outputs }), scalars);
    // Outputs that stay on the device throw where they are read: their descriptors are kept.
    return Object.defineProperties({ backend: plan.backend, kernel: plan.kernel }, Object.getOwnPropertyDescriptors(results));
  }

  async #solve(op: Op, args: Record<string, unknown>): Promise<Known> {
    let { backend } = args as { backend?: string };
    const { inputs, outputs, axes, variant } = sort(op, withoutBackend(args));
    const operands: Record<string, Operand> = {};
    const pitch: Record<string, number> = {};
    for (const [name, value] of Object.entries({ ...inputs, ...outputs })) {
      const found = operand(op.id, name, value, (op.ports[name] as TensorPort).dtypes);
      operands[name] = found;
      if (found.rowPitch !== undefined) pitch[name] = found.rowPitch;
      // What lies on a device is computed there.
      if (!found.data) backend ??= found.backend ?? ("pointer" in (found.buffer as object) ? "cuda" : "webgpu");
      const port = op.ports[name] as TensorPort;
      if (variantValues(port)) variant[name] = port.dtypes.length > 1 ? found.dtype : true;
    }
    const solved = solveAxes(op, axes, operands);
    const resident = Object.keys(operands).filter((name) => (inputs[name] ?? outputs[name]) instanceof Tensor);
    const plan = await preparePlan(this.#machine, op, solved as AxesOf<Op>, variant as VariantOf<Op>, { backend, resident });
    // Also finds what is missing, or does not fit the variant.
    plan.readOperands({ ...inputs, ...outputs });
    return { form: formOf(op, args), plan, pitch };
  }
}

function withoutBackend(args: Record<string, unknown>): Record<string, unknown> {
  const { backend: _, ...values } = args;
  return values;
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
