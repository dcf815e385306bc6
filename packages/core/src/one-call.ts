/** `await op({ ... })`: reads the arguments, finds or makes the plan, binds, runs. */
import type { DType } from "./dtype.js";
import { DTypeError, describe, HotsetError } from "./errors.js";
import { solveAxes } from "./op/axes.js";
import type { AnyVariant, Op, Port, TensorPort } from "./op/define.js";
import type { AxesOf, InputsOf, OutputsOf, VariantOf } from "./op/types.js";
import { variantValues } from "./op/variant.js";
import { makePlan, type Plan } from "./plan.js";
import type { Machine } from "./select.js";
import { type Operand, operand, Tensor } from "./tensor.js";

/** Plans kept; the oldest is dropped. Serving a few models and batch sizes needs a handful. */
const planLimit = 64;

export class OneCall {
  readonly #machine: Machine;
  readonly #plans = new Map<string, Plan>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  run(op: Op, args: Record<string, unknown>): Record<string, unknown> {
    const { backend, ...values } = args as { backend?: string } & Record<string, unknown>;
    const { inputs, outputs, scalars, axes, variant } = sort(op, values);
    const operands: Record<string, Operand> = {};
    for (const [name, value] of Object.entries({ ...inputs, ...outputs }))
      operands[name] = operand(op.id, name, value, acceptedBy(op, name));
    for (const [name, { dtype }] of Object.entries(operands)) {
      const port = op.ports[name] as TensorPort;
      if (variantValues(port)) variant[name] = port.dtypes.length > 1 ? dtype : true;
    }
    const solved = solveAxes(op, axes, operands);
    const resident = Object.keys(operands).filter((name) => (inputs[name] ?? outputs[name]) instanceof Tensor);
    const plan = this.#plan(op, solved, variant, resident, backend);
    const step = plan.bind(inputs as InputsOf<Op>, outputs as OutputsOf<Op>, scalars);
    try {
      return { ...(step.run() as object), backend: plan.backend, kernel: plan.kernel };
    } finally {
      step.dispose();
    }
  }

  #plan(
    op: Op,
    axes: Readonly<Record<string, number>>,
    variant: AnyVariant,
    resident: readonly string[],
    backend: string | undefined,
  ): Plan {
    let key = `${op.id}|${backend ?? ""}`;
    for (const name in axes) key += `|${axes[name]}`;
    for (const name in variant) key += `|${name}=${variant[name]}`;
    for (const name of resident) key += `|${name}`;
    let plan = this.#plans.get(key);
    if (!plan) {
      plan = makePlan(this.#machine, op, axes as AxesOf<Op>, variant as VariantOf<Op>, { backend, resident });
      if (this.#plans.size >= planLimit) this.#plans.delete(this.#plans.keys().next().value as string);
      this.#plans.set(key, plan);
    }
    return plan;
  }
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

function acceptedBy(op: Op, name: string): readonly DType[] {
  const port = op.ports[name];
  if (port?.kind !== "tensor") throw new DTypeError({ where: op.id, expected: "a tensor port", received: name });
  return port.dtypes;
}
