/// <reference lib="esnext.disposable" preserve="true" />
/** A kernel with its buffers: the hot path. */
import type { Backend, BoundKernel, Fault, Kernel } from "./backend.js";
import type { HostArray } from "./dtype.js";
import { HotsetError } from "./errors.js";
import { checkSetting, dimSize, dimText } from "./op/axes.js";
import type { AnyAxes, AnyVariant, Op, Port, ScalarPort, TensorPort } from "./op/define.js";
import type { Results, SettableOf } from "./op/types.js";
import type { Allocation } from "./tensor.js";

type StepOutputs<O extends Op> = Omit<Results<O["ports"]>, "backend" | "kernel">;

export class Step<O extends Op = Op> {
  /** The output arrays, the same at every run. */
  readonly outputs: StepOutputs<O>;
  readonly #op: Op;
  readonly #backend: Backend;
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
  #state: "ready" | "running" | "disposed" = "ready";

  constructor(
    op: Op,
    backend: Backend,
    kernel: Kernel,
    axes: AnyAxes,
    variant: AnyVariant,
    tensors: Readonly<Record<string, HostArray>>,
    pitch: Readonly<Record<string, number>>,
    scalars: Readonly<Record<string, number>>,
  ) {
    this.#op = op;
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

  /** Runs to the end on this thread (and the backend's own). Throws HotsetError; never allocates. */
  run(): StepOutputs<O> {
    if (this.#state !== "ready") throw this.#refusal("run");
    const views = this.#views;
    for (let i = 0; i < views.length; i++) if ((views[i] as HostArray).length !== this.#lengths[i]) throw this.#detached(i);
    const fault = this.#bound.run();
    if (fault !== undefined) throw faultError(this.#op, this.#axes, fault);
    return this.outputs;
  }

  /**
   * The same off this thread, where the backend can. Arrays that could be transferred meanwhile are copied now
   * and outputs copied back at the end; tensors from `alloc` and shared arrays are used in place.
   */
  async runAsync(): Promise<StepOutputs<O>> {
    if (this.#state !== "ready") throw this.#refusal("runAsync");
    const detached = this.#views.findIndex((view, i) => view.length !== this.#lengths[i]);
    if (detached >= 0) throw this.#detached(detached);
    this.#state = "running";
    try {
      this.#staged ??= this.#stage();
      const staged = this.#staged;
      for (const [name, view] of Object.entries(staged.tensors))
        if (view !== this.#tensors[name] && this.#isRead(name)) copyInto(view, this.#tensors[name] as HostArray);
      const fault = await staged.bound.start();
      if ((this.#state as string) === "disposed") throw this.#refusal("runAsync");
      for (const [name, view] of Object.entries(staged.tensors)) {
        if (view === this.#tensors[name] || (this.#op.ports[name] as TensorPort).role === "in") continue;
        const target = this.#tensors[name] as HostArray;
        if (target.length !== view.length) throw this.#detached(this.#views.indexOf(target));
        copyInto(target, view);
      }
      if (fault !== undefined) throw faultError(this.#op, this.#axes, fault);
      return this.outputs;
    } finally {
      if ((this.#state as string) === "disposed") this.#release();
      else this.#state = "ready";
    }
  }

  /** Sets a scalar, or the actual size of a live axis (at most the plan's), for the runs that follow. */
  set(name: SettableOf<O> & string, value: number): this {
    if (this.#state !== "ready") throw this.#refusal("set");
    checkSetting(this.#op, name, value, this.#axes);
    const stored = asStored(this.#op, name, value);
    this.#settings[name] = stored;
    this.#bound.set(name, stored);
    this.#staged?.bound.set(name, stored);
    return this;
  }

  /** Releases the kernel's memory. A run in flight ends first; its promise rejects. */
  dispose(): void {
    const running = this.#state === "running";
    if (this.#state === "disposed") return;
    this.#state = "disposed";
    if (!running) this.#release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #release(): void {
    this.#bound.release();
    this.#staged?.release();
    this.#staged = undefined;
  }

  #bind(tensors: Readonly<Record<string, HostArray>>): BoundKernel {
    const scalars = Object.fromEntries(Object.entries(this.#settings).filter(([name]) => this.#op.ports[name]?.kind === "scalar"));
    const bound = this.#kernel.bind({ op: this.#op, axes: this.#axes, variant: this.#variant, tensors, pitch: this.#pitch, scalars });
    for (const name of Object.keys(this.#settings)) if (this.#op.axes[name]) bound.set(name, this.#settings[name] as number);
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
    return (this.#op.ports[name] as TensorPort).role !== "out" || Object.keys(this.#settings).some((setting) => this.#op.axes[setting]);
  }

  #refusal(method: string): HotsetError {
    const where = `${this.#op.id}: step.${method}`;
    if (this.#state === "disposed")
      return new HotsetError("disposed", { where, expected: "a live step", received: "one that was disposed" });
    return new HotsetError("busy", {
      where,
      expected: "a step that is not running",
      received: "one whose runAsync has not ended",
      hint: "Await it, or bind a second step for work at the same time.",
    });
  }

  #detached(i: number): HotsetError {
    return detachedError(this.#op, Object.keys(this.#tensors)[i] as string, this.#lengths[i] as number, this.#views[i]?.length ?? 0);
  }
}

const isShared = (view: ArrayBufferView): boolean => typeof SharedArrayBuffer !== "undefined" && view.buffer instanceof SharedArrayBuffer;

const copyInto = (target: HostArray, source: HostArray): void => (target as Uint8Array).set(source as Uint8Array);

/** The error for a buffer that was transferred or resized after it was checked. */
export function detachedError(op: Op, name: string, expected: number, received: number): HotsetError {
  return new HotsetError("detached", {
    where: op.id,
    expected: `${name} to keep its ${expected} elements`,
    received: `${received}: its buffer was transferred or resized`,
    hint: "Bind again, or use plan.alloc or a SharedArrayBuffer, which cannot be transferred away.",
  });
}

/** Every scalar of the op: as given, else its default. */
export function completeScalars(op: Op, given: Readonly<Record<string, number>>, axes: AnyAxes): Record<string, number> {
  const scalars: Record<string, number> = {};
  for (const name in op.ports) {
    const port = op.ports[name] as Port;
    if (port.kind === "scalar") scalars[name] = initialScalar(op, name, port, given, axes);
  }
  return scalars;
}

function initialScalar(op: Op, name: string, port: ScalarPort, given: Readonly<Record<string, number>>, axes: AnyAxes): number {
  const value = given[name] ?? (typeof port.default === "function" ? port.default(axes) : port.default);
  if (value === undefined) throw new HotsetError("argument", { where: op.id, expected: `${name} (${port.doc})`, received: "nothing" });
  checkSetting(op, name, value, axes);
  return asStored(op, name, value);
}

/** The value a kernel sees: f32 scalars are rounded once, here, so that every backend gets the same. */
function asStored(op: Op, name: string, value: number): number {
  const port = op.ports[name];
  return port?.kind === "scalar" && port.dtype === "f32" ? Math.fround(value) : value;
}

/** The error for a fault that a kernel met in its data. */
export function faultError(op: Op, axes: AnyAxes, { code, port, index, value }: Fault): HotsetError {
  if (code === "memory")
    return new HotsetError("memory", {
      where: op.id,
      expected: "memory for the kernel's scratch",
      received: "none left",
      hint: "Plan smaller axes, or dispose what is not used.",
    });
  if (code === "internal")
    return new HotsetError("internal", {
      where: op.id,
      expected: "the kernel to finish",
      received: `status ${value}`,
      hint: "This is a bug in Hotset: please report it.",
    });
  const declared = op.ports[port] as TensorPort | undefined;
  const range = declared?.indexInto
    ? `an index the op can use (below ${dimText(declared.indexInto)} = ${dimSize(declared.indexInto, axes)})`
    : "a value the op can use";
  return new HotsetError("index", {
    where: op.id,
    expected: `${port}[${index}] to be ${range}`,
    received: `${value}`,
    hint: "That entry was skipped; the rest was done.",
  });
}
