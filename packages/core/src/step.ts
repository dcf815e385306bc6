/// <reference lib="esnext.disposable" preserve="true" />
/** A kernel with its buffers: what `plan.bind` gives, and what both kinds of step share. */
import type { Fault } from "./backend.js";
import type { DeviceRecorder } from "./device.js";
import { HotsetError } from "./errors.js";
import { checkSetting, dimSize, dimText } from "./op/axes.js";
import type { AnyAxes, Op, Port, ScalarPort, TensorPort } from "./op/define.js";
import type { Results, SettableOf } from "./op/types.js";

export type StepOutputs<O extends Op> = Omit<Results<O["ports"]>, "backend" | "kernel">;

export interface Step<O extends Op = Op> {
  /** The output arrays, the same at every run. An output that stays on a device is read with its tensor's `download`. */
  readonly outputs: StepOutputs<O>;
  /**
   * On the CPU: runs to the end on this thread and the backend's own; allocates nothing. On a device: queues the run
   * and returns, where every tensor is resident; throws where one is a host array. Throws HotsetError.
   */
  run(): StepOutputs<O>;
  /** Waits for the runs that a device has queued; rejects with what went wrong in them. At once on the CPU. */
  done(): Promise<void>;
  /**
   * Runs off this thread, where the backend can. On the CPU, arrays that could be transferred meanwhile are copied now
   * and outputs copied back at the end. On a device, host inputs go up, and outputs on the host come back.
   */
  runAsync(): Promise<StepOutputs<O>>;
  /** Records a run into the caller's own pass, encoder or stream, in which all tensors must be resident. Devices only. */
  encode(recorder: DeviceRecorder): void;
  /** Microseconds of one run: by the device's own clock where it has one. */
  time(): Promise<number>;
  /** Sets a scalar, or the actual size of a live axis (at most the plan's), for the runs that follow. */
  set(name: SettableOf<O> & string, value: number): this;
  /** Releases the kernel's memory. A run in flight ends first; its promise rejects. */
  dispose(): void;
  [Symbol.dispose](): void;
}

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
export function asStored(op: Op, name: string, value: number): number {
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

/** The error for a step that is disposed of, or that is running. */
function refusal(op: Op, method: string, disposed: boolean): HotsetError {
  const where = `${op.id}: step.${method}`;
  if (disposed) return new HotsetError("disposed", { where, expected: "a live step", received: "one that was disposed" });
  return new HotsetError("busy", {
    where,
    expected: "a step that is not running",
    received: "one whose runAsync has not ended",
    hint: "Await it, or bind a second step for work at the same time.",
  });
}

/** Ready, running one asynchronous run, or disposed of: what both kinds of step may do when. */
export abstract class StepLife {
  protected readonly op: Op;
  #state: "ready" | "running" | "disposed" = "ready";

  constructor(op: Op) {
    this.op = op;
  }

  dispose(): void {
    const running = this.#state === "running";
    if (this.#state === "disposed") return;
    this.#state = "disposed";
    if (!running) this.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Gives back what the step holds: once, and after a run in flight has ended. */
  protected abstract release(): void;

  /** Throws unless a run may begin. */
  protected ready(method: string): void {
    if (this.#state !== "ready") throw refusal(this.op, method, this.#state === "disposed");
  }

  protected live(method: string): void {
    if (this.#state === "disposed") throw refusal(this.op, method, true);
  }

  /** One run at a time; a step disposed of meanwhile is released at its end. */
  protected async alone<T>(work: () => Promise<T>): Promise<T> {
    this.#state = "running";
    try {
      return await work();
    } finally {
      if ((this.#state as string) === "disposed") this.release();
      else this.#state = "ready";
    }
  }
}
