/// <reference lib="esnext.disposable" preserve="true" />
/** A set of backends on one machine: plans, one-call forms, memory, and the reasons behind each choice. */
import { type Backend, type BackendSource, isDevice } from "./backend.js";
import type { DType } from "./dtype.js";
import { describe, HotsetError } from "./errors.js";
import { js } from "./js/index.js";
import type { MachineConstants } from "./machine.js";
import { OneCall } from "./one-call.js";
import { checkAxes, completeAxes } from "./op/axes.js";
import type { AnyAxes, AnyVariant, Op } from "./op/define.js";
import type { AxesOf, CallArguments, Results, VariantOf } from "./op/types.js";
import { completeVariant } from "./op/variant.js";
import { allocTensor, makePlan, type Plan, type PlanSettings, preparePlan } from "./plan.js";
import { type Candidate, type Machine, type Missing, rank } from "./select.js";
import type { Tensor } from "./tensor.js";

export interface HotsetSettings {
  /** Backends, or functions that load them; the `js` backend is always added last. */
  readonly backends?: readonly BackendSource[];
  /** Backends that could not be found, with the reason: shown by `doctor` and in errors. */
  readonly missing?: readonly Missing[];
  /** What `hotset calibrate` measured. */
  readonly constants?: MachineConstants | undefined;
}

/** Loads the backends and returns the API over them. A backend that fails to load is listed in `missing`. */
export async function createHotset(settings: HotsetSettings = {}): Promise<Hotset> {
  const backends: Backend[] = [];
  const missing: Missing[] = [...(settings.missing ?? [])];
  for (const source of settings.backends ?? []) {
    const backend = await loadBackend(source, missing);
    if (!backend) continue;
    if (backends.some(({ id }) => id === backend.id))
      throw new HotsetError("argument", {
        where: "createHotset",
        expected: "one backend of each kind",
        received: `a second ${backend.id}`,
      });
    backends.push(backend);
  }
  if (!backends.some(({ id }) => id === "js")) backends.push(js());
  return new Hotset({ backends, missing, constants: settings.constants ?? {} });
}

async function loadBackend(source: BackendSource, missing: Missing[]): Promise<Backend | undefined> {
  if ("kernel" in source) return source;
  try {
    return await (typeof source === "function" ? source() : source.load());
  } catch (error) {
    // Whatever goes wrong in one backend, the others still run.
    missing.push({
      id: typeof source === "function" ? source.name || "backend" : source.id,
      reason: error instanceof Error ? error.message : String(error),
    });
    return undefined;
  }
}

export class Hotset {
  #machine: Machine;
  #calls: OneCall;
  #disposed = false;

  constructor(machine: Machine) {
    this.#machine = machine;
    this.#calls = new OneCall(machine);
  }

  get backends(): readonly Backend[] {
    return this.#machine.backends;
  }

  /** Backends that are not available, with the reason. */
  get missing(): readonly Missing[] {
    return this.#machine.missing;
  }

  /** The speeds the choice is made by; empty before calibration. */
  get constants(): MachineConstants {
    return this.#machine.constants;
  }

  /** Replaces the speeds, for plans made from now on. */
  set constants(constants: MachineConstants) {
    this.#machine = { ...this.#machine, constants };
    this.#calls = new OneCall(this.#machine);
  }

  /** Validates, chooses a backend and prepares its kernel: on a device it is compiled here. */
  async plan<O extends Op>(op: O, axes: AxesOf<O>, variant: VariantOf<O>, settings: PlanSettings = {}): Promise<Plan<O>> {
    this.#live("plan");
    return preparePlan(this.#machine, op, axes, variant, settings);
  }

  /** The same without a promise, for the CPU; devices, which compile first, are left out or refused. */
  planSync<O extends Op>(op: O, axes: AxesOf<O>, variant: VariantOf<O>, settings: PlanSettings = {}): Plan<O> {
    this.#live("plan");
    return makePlan(this.#machine, op, axes, variant, settings);
  }

  /** Plans (cached), allocates the outputs that are not given, and runs. */
  async call<O extends Op>(op: O, args: CallArguments<O["axes"], O["ports"]>): Promise<Results<O["ports"]>> {
    this.#live("call");
    return this.#calls.run(op, args as Record<string, unknown>) as Results<O["ports"]> | Promise<Results<O["ports"]>>;
  }

  /** Every backend with its predicted time for this work, or the reason why it cannot; fastest first. */
  explain<O extends Op>(
    op: O,
    axes: AxesOf<O>,
    variant: VariantOf<O>,
    { resident = [] }: Pick<PlanSettings, "resident"> = {},
  ): Candidate[] {
    this.#live("explain");
    const complete = completeVariant(op, variant as AnyVariant);
    const sizes = completeAxes(op, axes as AnyAxes);
    checkAxes(op, sizes, complete);
    return rank(this.#machine, op, sizes, complete, { resident }).candidates;
  }

  /**
   * A tensor in one backend's memory: read there without a copy, and safe in asynchronous runs. Default: the first
   * backend on the CPU.
   */
  alloc<D extends DType>(dtype: D, shape: readonly number[], backend?: string): Tensor<D> {
    this.#live("alloc");
    const found =
      backend === undefined
        ? this.#machine.backends.find((one) => !isDevice(one))
        : this.#machine.backends.find(({ id }) => id === backend);
    if (!found)
      throw new HotsetError("argument", {
        where: "alloc",
        expected: `a backend of ${this.#machine.backends.map(({ id }) => id).join(", ")}`,
        received: describe(backend),
      });
    return allocTensor(found, dtype, shape) as unknown as Tensor<D>;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const backend of this.#machine.backends) backend.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #live(method: string): void {
    if (this.#disposed)
      throw new HotsetError("disposed", { where: `hotset.${method}`, expected: "a live Hotset", received: "one that was disposed" });
  }
}
