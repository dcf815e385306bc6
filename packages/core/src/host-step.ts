/// <reference lib="esnext.disposable" preserve="true" />
/** A kernel on the CPU with its arrays: the hot path. */
import type { BoundKernel, HostBackend, Kernel } from "./backend.js";
import type { HostArray } from "./dtype.js";
import { type HotsetError, UnsupportedError } from "./errors.js";
import { checkSetting } from "./op/axes.js";
import type { AnyAxes, AnyVariant, Op, TensorPort } from "./op/define.js";
import type { SettableOf } from "./op/types.js";
import { asStored, completeScalars, detachedError, faultError, type Step, StepLife, type StepOutputs } from "./step.js";
import type { Allocation } from "./tensor.js";

export class HostStep<O extends Op = Op> extends StepLife implements Step<O> {
  readonly outputs: StepOutputs<O>;
  readonly #backend: HostBackend;
  readonly #kernel: Kernel;
  readonly #axes: AnyAxes;
  readonly #variant: AnyVariant;
  readonly #tensors: Readonly<Record<string, HostArray>>;
  readonly #pitch: Readonly<Record<string, number>>;
  readonly #settings: Record<string, number> = {};
  readonly #views: HostArray[];
  readonly #lengths: number[];
  #bound: BoundKernel;
  #staged: { bound: BoundKernel; tensors: Record<string, HostArray>; release(): void } | undefined;

  constructor(
    op: Op,
    backend: HostBackend,
    kernel: Kernel,
    axes: AnyAxes,
    variant: AnyVariant,
    tensors: Readonly<Record<string, HostArray>>,
    pitch: Readonly<Record<string, number>>,
    scalars: Readonly<Record<string, number>>,
  ) {
    super(op);
    this.#backend = backend;
    this.#kernel = kernel;
    this.#axes = axes;
    this.#variant = variant;
    this.#tensors = tensors;
    this.#pitch = pitch;
    Object.assign(this.#settings, completeScalars(op, scalars, axes));
    for (const name of Object.keys(scalars)) {
      if (op.ports[name]?.kind !== "scalar") checkSetting(op, name, scalars[name] as number, axes);
    }
    this.#views = Object.values(tensors);
    this.#lengths = this.#views.map((view) => view.length);
    this.outputs = Object.fromEntries(
      Object.entries(tensors).filter(([name]) => (op.ports[name] as TensorPort).role === "out"),
    ) as StepOutputs<O>;
    this.#bound = this.#bind(tensors);
    for (const [name, value] of Object.entries(scalars)) if (op.axes[name]) this.set(name as SettableOf<O> & string, value);
  }

  run(): StepOutputs<O> {
    this.ready("run");
    const views = this.#views;
    for (let i = 0; i < views.length; i++) if ((views[i] as HostArray).length !== this.#lengths[i]) throw this.#detached(i);
    const fault = this.#bound.run();
    if (fault !== undefined) throw faultError(this.op, this.#axes, fault);
    return this.outputs;
  }

  async runAsync(): Promise<StepOutputs<O>> {
    this.ready("runAsync");
    const detached = this.#views.findIndex((view, i) => view.length !== this.#lengths[i]);
    if (detached >= 0) throw this.#detached(detached);
    return this.alone(async () => {
      this.#staged ??= this.#stage();
      const staged = this.#staged;
      for (const [name, view] of Object.entries(staged.tensors))
        if (view !== this.#tensors[name] && this.#isRead(name)) copyInto(view, this.#tensors[name] as HostArray);
      const fault = await staged.bound.start();
      this.live("runAsync");
      for (const [name, view] of Object.entries(staged.tensors)) {
        if (view === this.#tensors[name] || (this.op.ports[name] as TensorPort).role === "in") continue;
        const target = this.#tensors[name] as HostArray;
        if (target.length !== view.length) throw this.#detached(this.#views.indexOf(target));
        copyInto(target, view);
      }
      if (fault !== undefined) throw faultError(this.op, this.#axes, fault);
      return this.outputs;
    });
  }

  async done(): Promise<void> {
    this.live("done");
  }

  encode(): void {
    throw new UnsupportedError({
      where: `${this.op.id}: step.encode`,
      expected: "a step on a device",
      received: `one on ${this.#backend.id}`,
      hint: 'Plan with { backend: "webgpu" }.',
    });
  }

  async time(): Promise<number> {
    const start = performance.now();
    this.run();
    return (performance.now() - start) * 1e3;
  }

  set(name: SettableOf<O> & string, value: number): this {
    this.ready("set");
    checkSetting(this.op, name, value, this.#axes);
    const stored = asStored(this.op, name, value);
    this.#settings[name] = stored;
    this.#bound.set(name, stored);
    this.#staged?.bound.set(name, stored);
    return this;
  }

  protected release(): void {
    this.#bound.release();
    this.#staged?.release();
    this.#staged = undefined;
  }

  #bind(tensors: Readonly<Record<string, HostArray>>): BoundKernel {
    const scalars = Object.fromEntries(Object.entries(this.#settings).filter(([name]) => this.op.ports[name]?.kind === "scalar"));
    const bound = this.#kernel.bind({ op: this.op, axes: this.#axes, variant: this.#variant, tensors, pitch: this.#pitch, scalars });
    for (const name of Object.keys(this.#settings)) if (this.op.axes[name]) bound.set(name, this.#settings[name] as number);
    return bound;
  }

  #stage(): { bound: BoundKernel; tensors: Record<string, HostArray>; release(): void } {
    const owned: Allocation[] = [];
    const tensors: Record<string, HostArray> = {};
    try {
      for (const [name, view] of Object.entries(this.#tensors)) {
        if (isShared(view) || this.#backend.owns(view)) {
          tensors[name] = view;
          continue;
        }
        const allocation = this.#backend.alloc(view.byteLength);
        const Storage = view.constructor as new (buffer: ArrayBufferLike, byteOffset: number, length: number) => HostArray;
        owned.push(allocation);
        tensors[name] = new Storage(allocation.bytes.buffer, allocation.bytes.byteOffset, view.length);
      }
      const bound = this.#bind(tensors);
      return {
        bound,
        tensors,
        release: () => {
          bound.release();
          for (const allocation of owned) allocation.release();
        },
      };
    } catch (error) {
      for (const allocation of owned) allocation.release();
      throw error;
    }
  }

  /** Also an output that a run may leave partly as it was: where a live axis is set below the plan's size. */
  #isRead(name: string): boolean {
    return (this.op.ports[name] as TensorPort).role !== "out" || Object.keys(this.#settings).some((setting) => this.op.axes[setting]);
  }

  #detached(i: number): HotsetError {
    return detachedError(this.op, Object.keys(this.#tensors)[i] as string, this.#lengths[i] as number, this.#views[i]?.length ?? 0);
  }
}

const isShared = (view: ArrayBufferView): boolean => typeof SharedArrayBuffer !== "undefined" && view.buffer instanceof SharedArrayBuffer;

const copyInto = (target: HostArray, source: HostArray): void => (target as Uint8Array).set(source as Uint8Array);
