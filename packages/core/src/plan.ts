/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Plans and steps. A plan is an op with sizes, a variant and a kernel; `bind` fixes its buffers; `step.run()`
 * only calls. Everything that can be wrong is found before that, except what data may change.
 */
import type { Backend, Binding, Fault, Kernel } from "./backend.js";
import { type DType, dtypes, type HostArray, rowLength, storageLength } from "./dtype.js";
import { HotsetError, UnsupportedError } from "./errors.js";
import { checkAxes, checkTensor, portShape } from "./op/axes.js";
import type { AnyAxes, AnyVariant, Op, Port, TensorPort } from "./op/define.js";
import type { AxesOf, InputsOf, OutputsOf, VariantOf } from "./op/types.js";
import { completeVariant, portDType, presentTensors } from "./op/variant.js";
import { type Candidate, choose, type Machine } from "./select.js";
import { completeScalars, detachedError, faultError, Step } from "./step.js";
import { operand, Tensor } from "./tensor.js";

export interface PlanSettings {
  /** A backend's id: run there or throw. `auto` or nothing: the fastest. */
  readonly backend?: string | undefined;
  /** Ports whose tensors will be made by `plan.alloc`, and so need no copy: for the choice. */
  readonly resident?: readonly string[] | undefined;
}

/** Makes a plan, or throws ShapeError, DTypeError or UnsupportedError. Backends are loaded already. */
export function makePlan<O extends Op>(
  machine: Machine,
  op: O,
  axes: AxesOf<O>,
  variant: VariantOf<O>,
  settings: PlanSettings = {},
): Plan<O> {
  const complete = completeVariant(op, variant as AnyVariant);
  checkAxes(op, axes, complete);
  return new Plan(machine, op, axes, complete, settings);
}

/** A tensor port as this plan has it. */
interface PlannedPort {
  readonly name: string;
  readonly port: TensorPort;
  readonly dtype: DType;
  /** Storage elements of the dense tensor, and of one row of it. */
  readonly length: number;
  readonly row: number;
}

function plannedPort(op: Op, name: string, axes: AnyAxes, variant: AnyVariant): PlannedPort {
  const port = op.ports[name] as TensorPort;
  const dtype = portDType(op, name, variant) as DType;
  const shape = portShape(port, axes);
  return { name, port, dtype, length: storageLength(dtype, shape), row: rowLength(dtype, shape.at(-1) ?? 1) };
}

function bindAndRun(kernel: Kernel, binding: Binding): Fault | undefined {
  const bound = kernel.bind(binding);
  try {
    return bound.run();
  } finally {
    bound.release();
  }
}

export class Plan<O extends Op = Op> {
  readonly op: O;
  readonly axes: AxesOf<O>;
  /** Complete: defaults filled in. */
  readonly variant: AnyVariant;
  #machine: Machine;
  readonly #settings: PlanSettings;
  #backend: Backend;
  #kernel: Kernel;
  #why: string;
  #candidates: readonly Candidate[];
  #disposed = false;
  readonly #ports: readonly PlannedPort[];

  constructor(machine: Machine, op: O, axes: AxesOf<O>, variant: AnyVariant, settings: PlanSettings) {
    this.op = op;
    this.axes = axes;
    this.variant = variant;
    this.#machine = machine;
    this.#settings = settings;
    this.#ports = presentTensors(op, variant).map((name) => plannedPort(op, name, axes, variant));
    const choice = choose(machine, op, axes, variant, settings as { backend?: string; resident?: readonly string[] });
    this.#backend = choice.backend;
    this.#kernel = choice.kernel;
    this.#why = choice.why;
    this.#candidates = choice.candidates;
  }

  /** Id of the backend it runs on. */
  get backend(): string {
    return this.#backend.id;
  }

  /** Instruction set, build or device of that backend. */
  get target(): string {
    return this.#backend.target;
  }

  get kernel(): string {
    return this.#kernel.name;
  }

  /** The reason for the choice, in one sentence. */
  get why(): string {
    return this.#why;
  }

  /** Every backend with its predicted time or the reason why it cannot. */
  get candidates(): readonly Candidate[] {
    return this.#candidates;
  }

  /** Same inputs, same bits, whatever the threads. */
  get deterministic(): boolean {
    return this.#kernel.deterministic;
  }

  /** A tensor for a port, in the chosen backend's memory: no copy on any run, safe in asynchronous ones. */
  alloc<N extends keyof O["ports"] & string>(port: N): O["ports"][N] extends TensorPort<infer D> ? Tensor<D> : never {
    this.#live("alloc");
    const declared = this.op.ports[port] as Port | undefined;
    const dtype = declared?.kind === "tensor" ? portDType(this.op, port, this.variant) : undefined;
    if (declared?.kind !== "tensor" || !dtype)
      throw new HotsetError("argument", {
        where: `${this.op.id}: plan.alloc`,
        expected: `one of ${presentTensors(this.op, this.variant).join(", ")}`,
        received: JSON.stringify(port),
      });
    return allocTensor(this.#backend, dtype, portShape(declared, this.axes)) as O["ports"][N] extends TensorPort<infer D>
      ? Tensor<D>
      : never;
  }

  /**
   * Fixes the buffers. Outputs left out are allocated. Throws DTypeError or ShapeError where a tensor does not
   * fit the plan, and HotsetError with code `memory` where the backend has none left.
   */
  bind(inputs: InputsOf<O>, outputs: OutputsOf<O> = {} as OutputsOf<O>, scalars: Readonly<Record<string, number>> = {}): Step<O> {
    this.#live("bind");
    const given = { ...(inputs as object), ...(outputs as object) } as Record<string, unknown>;
    const { tensors, pitch } = this.checkOperands(given);
    checkOverlap(this.op, tensors);
    // Nothing runs yet, so another backend can take over, unless the tensors lie in this one's memory.
    const resident = Object.values(given).some((value) => value instanceof Tensor);
    return this.#withFallback(
      resident,
      () =>
        new Step<O>(this.op, this.#backend, this.#kernel, this.axes, this.variant, this.#complete(tensors), this.#pitches(pitch), scalars),
    );
  }

  /** Reads tensor arguments and checks names, presence, dtypes and sizes. */
  checkOperands(given: Readonly<Record<string, unknown>>): { tensors: Record<string, HostArray>; pitch: Record<string, number> } {
    const tensors: Record<string, HostArray> = {};
    const pitch: Record<string, number> = {};
    for (const name in given)
      if (given[name] !== undefined && !this.#ports.some((port) => port.name === name)) throw absent(this.op, name, this.variant);
    for (const { name, port, dtype } of this.#ports) {
      if (given[name] === undefined) {
        if (port.role === "out") continue;
        throw new HotsetError("argument", { where: this.op.id, expected: `${name} (${port.doc})`, received: "nothing" });
      }
      const found = operand(this.op.id, name, given[name], [dtype]);
      checkTensor(this.op, name, found, this.axes);
      tensors[name] = found.data;
      if (found.rowPitch !== undefined) pitch[name] = found.rowPitch;
    }
    return { tensors, pitch };
  }

  /** For one-call forms, whose arguments were checked: runs once, and returns the outputs. */
  runOnce(
    given: Readonly<Record<string, HostArray>>,
    pitch: Readonly<Record<string, number>>,
    scalarsGiven: Readonly<Record<string, number>>,
    resident: boolean,
  ): Record<string, HostArray> {
    this.#live("run");
    const tensors = this.#complete(given);
    for (const { name, length, port } of this.#ports)
      if (!port.pitched && (tensors[name] as HostArray).length !== length)
        throw detachedError(this.op, name, length, (tensors[name] as HostArray).length);
    checkOverlap(this.op, given);
    const scalars = completeScalars(this.op, scalarsGiven, this.axes);
    const binding = { op: this.op, axes: this.axes, variant: this.variant, tensors, pitch: this.#pitches(pitch), scalars };
    const fault = this.#withFallback(resident, () => (this.#kernel.once ? this.#kernel.once(binding) : bindAndRun(this.#kernel, binding)));
    if (fault !== undefined) throw faultError(this.op, this.axes, fault);
    const outputs: Record<string, HostArray> = {};
    for (const { name, port } of this.#ports) if (port.role === "out") outputs[name] = tensors[name] as HostArray;
    return outputs;
  }

  /** Afterwards `bind` and `alloc` throw. Steps that were bound live on until they are disposed themselves. */
  dispose(): void {
    this.#disposed = true;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** What was given, and new arrays for the outputs that were not. */
  #complete(given: Readonly<Record<string, HostArray>>): Record<string, HostArray> {
    const tensors: Record<string, HostArray> = {};
    for (const { name, dtype, length } of this.#ports) tensors[name] = given[name] ?? new dtypes[dtype].storage(length);
    return tensors;
  }

  #pitches(given: Readonly<Record<string, number>>): Record<string, number> {
    const pitch: Record<string, number> = {};
    for (const { name, row, port } of this.#ports) if (port.pitched) pitch[name] = given[name] ?? row;
    return pitch;
  }

  #withFallback<T>(resident: boolean, work: () => T): T {
    for (;;) {
      try {
        return work();
      } catch (error) {
        if (!(error instanceof HotsetError) || error.code !== "memory" || (this.#settings.backend ?? "auto") !== "auto" || resident)
          throw error;
        this.#fallBack(error);
      }
    }
  }

  #fallBack(error: HotsetError): void {
    const failed = this.#backend.id;
    this.#machine = {
      ...this.#machine,
      backends: this.#machine.backends.filter(({ id }) => id !== failed),
      missing: [...this.#machine.missing, { id: failed, reason: error.message }],
    };
    const choice = choose(this.#machine, this.op, this.axes, this.variant, {});
    this.#backend = choice.backend;
    this.#kernel = choice.kernel;
    this.#candidates = choice.candidates;
    this.#why = `fell back from ${failed} (${error.message}): ${choice.why}`;
  }

  #live(method: string): void {
    if (this.#disposed)
      throw new HotsetError("disposed", {
        where: `${this.op.id}: plan.${method}`,
        expected: "a live plan",
        received: "one that was disposed",
      });
  }
}

export function allocTensor(backend: Backend, dtype: keyof typeof dtypes, shape: readonly number[]): Tensor {
  return new Tensor(dtype, shape, backend.id, backend.alloc(storageLength(dtype, shape) * dtypes[dtype].storage.BYTES_PER_ELEMENT));
}

/** Kernels may write an output before they have read every input: what is written must lie apart from the rest. */
function checkOverlap(op: Op, tensors: Readonly<Record<string, HostArray>>): void {
  const entries = Object.entries(tensors);
  for (const [written, target] of entries) {
    if ((op.ports[written] as TensorPort).role === "in") continue;
    for (const [name, other] of entries) {
      const apart =
        name === written ||
        target.buffer !== other.buffer ||
        target.byteOffset >= other.byteOffset + other.byteLength ||
        other.byteOffset >= target.byteOffset + target.byteLength;
      if (!apart)
        throw new HotsetError("argument", {
          where: op.id,
          expected: `${written}, which is written, to share no memory with ${name}`,
          received: "views of one buffer that overlap",
        });
    }
  }
}

function absent(op: Op, name: string, variant: AnyVariant): HotsetError {
  const port = op.ports[name];
  if (port?.kind !== "tensor")
    return new HotsetError("argument", {
      where: op.id,
      expected: `tensors named ${presentTensors(op, variant).join(", ")}`,
      received: JSON.stringify(name),
    });
  if (port.presence === "scale") {
    const { port: scaled, dtypes: needing } = port.scaleOf as NonNullable<TensorPort["scaleOf"]>;
    return new UnsupportedError({
      where: op.id,
      expected: `${name} only with ${scaled} of dtype ${needing.join(", ")}`,
      received: `${name} with ${scaled} of dtype ${variant[scaled]}`,
    });
  }
  return new HotsetError("argument", {
    where: op.id,
    expected: `no ${name}: the plan was made without it`,
    received: name,
    hint: `Plan with { ${name}: true }.`,
  });
}
