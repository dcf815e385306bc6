/**
 * Plans and steps. A plan is an op with sizes, a variant and a kernel; `bind` fixes its buffers; `step.run()`
 * only calls. Everything that can be wrong is found before that, except what data may change.
 */
import type { Backend, Kernel } from "./backend.js";
import { dtypes, type HostArray, rowLength, storageLength } from "./dtype.js";
import { HotsetError, UnsupportedError } from "./errors.js";
import { checkAxes, checkTensor, portShape } from "./op/axes.js";
import type { AnyVariant, Op, Port, TensorPort } from "./op/define.js";
import type { AxesOf, InputsOf, OutputsOf, VariantOf } from "./op/types.js";
import { completeVariant, portDType, presentTensors } from "./op/variant.js";
import { type Candidate, choose, type Machine } from "./select.js";
import { Step } from "./step.js";
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

  constructor(machine: Machine, op: O, axes: AxesOf<O>, variant: AnyVariant, settings: PlanSettings) {
    this.op = op;
    this.axes = axes;
    this.variant = variant;
    this.#machine = machine;
    this.#settings = settings;
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
    const tensors: Record<string, HostArray> = {};
    const pitch: Record<string, number> = {};
    const given = { ...(inputs as object), ...(outputs as object) } as Record<string, unknown>;
    const present = presentTensors(this.op, this.variant);
    for (const name of Object.keys(given)) {
      if (given[name] !== undefined && !present.includes(name)) throw absent(this.op, name, this.variant);
    }
    for (const name of present) {
      const port = this.op.ports[name] as TensorPort;
      const dtype = portDType(this.op, name, this.variant) as NonNullable<ReturnType<typeof portDType>>;
      if (given[name] === undefined) {
        if (port.role !== "out")
          throw new HotsetError("argument", { where: this.op.id, expected: `${name} (${port.doc})`, received: "nothing" });
        continue;
      }
      const found = operand(this.op.id, name, given[name], [dtype]);
      checkTensor(this.op, name, found, this.axes);
      tensors[name] = found.data;
      if (port.pitched) pitch[name] = found.rowPitch ?? rowLength(dtype, portShape(port, this.axes).at(-1) ?? 1);
    }
    checkOverlap(this.op, tensors);
    return this.#bindWithFallback(tensors, pitch, scalars, given);
  }

  /** Afterwards `bind` and `alloc` throw. Steps that were bound live on until they are disposed themselves. */
  dispose(): void {
    this.#disposed = true;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #bindWithFallback(
    tensors: Record<string, HostArray>,
    pitch: Record<string, number>,
    scalars: Readonly<Record<string, number>>,
    given: Record<string, unknown>,
  ): Step<O> {
    for (;;) {
      try {
        const all = { ...tensors };
        for (const name of presentTensors(this.op, this.variant)) {
          if (all[name]) continue;
          const port = this.op.ports[name] as TensorPort;
          const dtype = portDType(this.op, name, this.variant) as NonNullable<ReturnType<typeof portDType>>;
          const shape = portShape(port, this.axes);
          all[name] = new dtypes[dtype].storage(storageLength(dtype, shape));
          if (port.pitched) pitch[name] = rowLength(dtype, shape.at(-1) ?? 1);
        }
        return new Step<O>(this.op, this.#backend, this.#kernel, this.axes, this.variant, all, pitch, scalars);
      } catch (error) {
        // Nothing has run yet, so another backend can take over, unless the tensors lie in this one's memory.
        const resident = Object.values(given).some((value) => value instanceof Tensor);
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
