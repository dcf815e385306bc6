/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Plans and steps. A plan is an op with sizes, a variant and a kernel; `bind` fixes its buffers; `step.run()`
 * only calls. Everything that can be wrong is found before that, except what data may change.
 */
import { type Backend, type Binding, type Fault, isDevice, type Kernel } from "./backend.js";
import { type DevicePlace, DeviceStep, lostError } from "./device-step.js";
import { byteLength, type DType, dtypes, type HostArray } from "./dtype.js";
import { HotsetError } from "./errors.js";
import { HostStep } from "./host-step.js";
import { checkAxes, completeAxes, portShape } from "./op/axes.js";
import type { AnyAxes, AnyVariant, Op, Port, TensorPort } from "./op/define.js";
import type { AxesOf, InputsOf, OutputsOf, VariantOf } from "./op/types.js";
import { completeVariant, portDType, presentTensors } from "./op/variant.js";
import { checkOverlap, devicePlaces, hostArrays, type Operands, type PlannedPort, plannedPort, readOperands } from "./plan-operands.js";
import { type Candidate, type Choice, type Chosen, choose, type Machine, type Residency } from "./select.js";
import { completeScalars, detachedError, faultError, type Step, type StepOutputs } from "./step.js";
import { Tensor } from "./tensor.js";

export interface PlanSettings {
  /** A backend's id: run there or throw. `auto` or nothing: the fastest. */
  readonly backend?: string | undefined;
  /**
   * For the choice: ports whose tensors will be made by `plan.alloc`, and so need no copy; or, by port, the backend in
   * whose memory a tensor lies already, so that the steps of a chain stay where their data are unless moving pays.
   */
  readonly resident?: Residency | undefined;
}

/** Makes a plan, or throws ShapeError, DTypeError or UnsupportedError. Backends on devices are not considered. */
export function makePlan<O extends Op>(
  machine: Machine,
  op: O,
  axes: AxesOf<O>,
  variant: VariantOf<O>,
  settings: PlanSettings = {},
  devices = false,
): Plan<O> {
  const complete = completeVariant(op, variant as AnyVariant);
  const sizes = completeAxes(op, axes as AnyAxes);
  checkAxes(op, sizes, complete);
  return new Plan(machine, op, sizes as AxesOf<O>, complete, settings, devices);
}

/** The same on any backend: kernels of devices are compiled before the promise resolves. */
export const preparePlan = async <O extends Op>(
  machine: Machine,
  op: O,
  axes: AxesOf<O>,
  variant: VariantOf<O>,
  settings: PlanSettings = {},
): Promise<Plan<O>> => makePlan(machine, op, axes, variant, settings, true).prepare();

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
  #chosen: Chosen;
  #why: string;
  #candidates: readonly Candidate[];
  #disposed = false;
  readonly #ports: readonly PlannedPort[];

  constructor(machine: Machine, op: O, axes: AxesOf<O>, variant: AnyVariant, settings: PlanSettings, devices: boolean) {
    this.op = op;
    this.axes = axes;
    this.variant = variant;
    this.#machine = machine;
    this.#settings = settings;
    this.#ports = presentTensors(op, variant).map((name) => plannedPort(op, name, axes, variant));
    const choice = choose(machine, op, axes, variant, { ...settings, devices });
    this.#chosen = choice.chosen;
    this.#why = choice.why;
    this.#candidates = choice.candidates;
  }

  /** Id of the backend it runs on. */
  get backend(): string {
    return this.#chosen.backend.id;
  }

  /** Instruction set, build or device of that backend. */
  get target(): string {
    return this.#chosen.backend.target;
  }

  get kernel(): string {
    return this.#chosen.kernel.name;
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
    return this.#chosen.kernel.deterministic;
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
    return allocTensor(this.#chosen.backend, dtype, portShape(declared, this.axes)) as O["ports"][N] extends TensorPort<infer D>
      ? Tensor<D>
      : never;
  }

  /** Does it run on a device: are runs queued, and tensors from `alloc` out of the host's sight? */
  get onDevice(): boolean {
    return isDevice(this.#chosen.backend);
  }

  /** Compiles what must be; `auto` goes on to the CPU where a device cannot. */
  async prepare(): Promise<this> {
    const { backend, kernel } = this.#chosen;
    if (!isDevice(backend)) return this;
    try {
      await (kernel as Extract<Chosen, { backend: typeof backend }>["kernel"]).prepare();
    } catch (error) {
      if (!this.#mayFallBack(error)) throw error;
      this.#fallBack(error);
    }
    return this;
  }

  /**
   * Fixes the buffers. Outputs left out are allocated, on the host. Throws DTypeError or ShapeError where a tensor does
   * not fit the plan, and HotsetError with code `memory` where the backend has none left.
   */
  bind(inputs: InputsOf<O>, outputs: OutputsOf<O> = {} as OutputsOf<O>, scalars: Readonly<Record<string, number>> = {}): Step<O> {
    this.#live("bind");
    const given = { ...(inputs as object), ...(outputs as object) } as Record<string, unknown>;
    const read = this.readOperands(given);
    // Nothing runs yet, so another backend can take over, unless the tensors lie in this one's memory.
    const resident = Object.values(given).some((value) => value instanceof Tensor);
    return this.#withFallback(resident, () => this.#bind(read, scalars));
  }

  #bind({ operands, pitch }: Operands, scalars: Readonly<Record<string, number>>): Step<O> {
    const { op, axes, variant } = this;
    const pitches = this.#pitches(pitch);
    if (isDevice(this.#chosen.backend)) {
      const { backend, kernel } = this.#chosen as Extract<Chosen, { backend: { device: object } }>;
      if (backend.device.lost !== undefined) throw lostError(op.id, backend.id, backend.device.lost);
      const places: Record<string, DevicePlace> = devicePlaces(op, backend, operands);
      const arrays: Record<string, HostArray> = {};
      for (const [name, place] of Object.entries(places)) if ("host" in place) arrays[name] = place.host;
      checkOverlap(op, arrays);
      for (const { name, dtype, length } of this.#ports) places[name] ??= { host: new dtypes[dtype].storage(length) };
      return new DeviceStep<O>(op, backend, kernel, axes, variant, places, pitches, scalars);
    }
    const { backend, kernel } = this.#chosen as Extract<Chosen, { kernel: Kernel }>;
    const tensors = hostArrays(op, backend, operands);
    checkOverlap(op, tensors);
    return new HostStep<O>(op, backend, kernel, axes, variant, this.#complete(tensors), pitches, scalars);
  }

  /** Reads tensor arguments and checks names, presence, dtypes and sizes. */
  readOperands(given: Readonly<Record<string, unknown>>): Operands {
    return readOperands(this.op, this.axes, this.variant, this.#ports, given);
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
    const fault = this.#withFallback(resident, () => {
      const kernel = this.#chosen.kernel as Kernel;
      return kernel.once ? kernel.once(binding) : bindAndRun(kernel, binding);
    });
    if (fault !== undefined) throw faultError(this.op, this.axes, fault);
    const outputs: Record<string, HostArray> = {};
    for (const { name, port } of this.#ports) if (port.role === "out") outputs[name] = tensors[name] as HostArray;
    return outputs;
  }

  /** The same on any backend. Failed work is done again on the CPU only under `auto`, with all on the host and nothing `inout`. */
  async runOnceAsync(read: Operands, scalars: Readonly<Record<string, number>>): Promise<StepOutputs<O>> {
    this.#live("run");
    const redo = !Object.values(read.operands).some(({ data }) => !data) && !this.#ports.some(({ port }) => port.role === "inout");
    for (;;) {
      let step: Step<O> | undefined;
      try {
        step = this.#bind(read, scalars);
        return await step.runAsync();
      } catch (error) {
        if (!redo || !this.onDevice || !this.#mayFallBack(error)) throw error;
        this.#fallBack(error);
      } finally {
        step?.dispose();
      }
    }
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
        if (resident || !this.#mayFallBack(error)) throw error;
        this.#fallBack(error);
      }
    }
  }

  #mayFallBack(error: unknown): error is HotsetError {
    if (!(error instanceof HotsetError) || (this.#settings.backend ?? "auto") !== "auto") return false;
    return error.code === "memory" || (this.onDevice && (error.code === "device" || error.code === "internal"));
  }

  /** To the CPU: a device would have to compile first. */
  #fallBack(error: HotsetError): void {
    const failed = this.#chosen.backend.id;
    this.#machine = {
      ...this.#machine,
      backends: this.#machine.backends.filter(({ id }) => id !== failed),
      missing: [...this.#machine.missing, { id: failed, reason: error.message }],
    };
    const choice: Choice = choose(this.#machine, this.op, this.axes, this.variant, { devices: false });
    this.#chosen = choice.chosen;
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

export function allocTensor(backend: Backend, dtype: DType, shape: readonly number[]): Tensor {
  return new Tensor(dtype, shape, backend.id, backend.alloc(byteLength(dtype, shape)));
}
