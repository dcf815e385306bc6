/// <reference lib="esnext.disposable" preserve="true" />
/** A kernel on a device with its memory: runs are queued, and host arrays have a mirror on the device. */
import type { DeviceBackend } from "./backend.js";
import type { DeviceBoundKernel, DeviceKernel, DeviceMemory, DeviceRecorder, Readback } from "./device.js";
import type { HostArray } from "./dtype.js";
import { HotsetError } from "./errors.js";
import { checkSetting } from "./op/axes.js";
import type { AnyAxes, AnyVariant, Op, TensorPort } from "./op/define.js";
import type { SettableOf } from "./op/types.js";
import { asStored, completeScalars, detachedError, faultError, type Step, StepLife, type StepOutputs } from "./step.js";
import { bytesOf } from "./tensor.js";

/** Where a tensor of a device step lies. */
export type DevicePlace = { readonly memory: DeviceMemory } | { readonly host: HostArray };

/** A host array and its copy on the device. */
interface Mirror {
  readonly name: string;
  readonly role: TensorPort["role"];
  readonly host: HostArray;
  readonly length: number;
  readonly memory: DeviceMemory;
}

export class DeviceStep<O extends Op = Op> extends StepLife implements Step<O> {
  readonly outputs: StepOutputs<O>;
  readonly #backend: DeviceBackend;
  readonly #axes: AnyAxes;
  readonly #mirrors: Mirror[] = [];
  readonly #bound: DeviceBoundKernel;
  /** Live axes below the plan's size: the kernel leaves the rest of an output as it was, so that must go up too. */
  readonly #partial = new Set<string>();

  constructor(
    op: Op,
    backend: DeviceBackend,
    kernel: DeviceKernel,
    axes: AnyAxes,
    variant: AnyVariant,
    places: Readonly<Record<string, DevicePlace>>,
    pitch: Readonly<Record<string, number>>,
    settings: Readonly<Record<string, number>>,
  ) {
    super(op);
    this.#backend = backend;
    this.#axes = axes;
    const scalars = completeScalars(op, settings, axes);
    for (const name of Object.keys(settings)) checkSetting(op, name, settings[name] as number, axes);
    const tensors: Record<string, DeviceMemory> = {};
    const outputs: Record<string, HostArray> = {};
    try {
      for (const [name, place] of Object.entries(places)) {
        const { role } = op.ports[name] as TensorPort;
        if ("memory" in place) {
          tensors[name] = place.memory;
          if (role === "out") Object.defineProperty(outputs, name, { enumerable: true, get: () => stays(op, backend, name) });
          continue;
        }
        const { host } = place;
        const memory = backend.alloc(host.byteLength);
        this.#mirrors.push({ name, role, host, length: host.length, memory });
        tensors[name] = memory;
        if (role === "out") outputs[name] = host;
      }
      this.#bound = kernel.bind({ op, axes, variant, tensors, pitch, scalars });
    } catch (error) {
      for (const { memory } of this.#mirrors) memory.release();
      throw error;
    }
    this.outputs = outputs as unknown as StepOutputs<O>;
    for (const [name, value] of Object.entries(settings)) if (op.axes[name]) this.set(name as SettableOf<O> & string, value);
  }

  run(): StepOutputs<O> {
    this.ready("run");
    this.#resident("run", "Use await step.runAsync(), or tensors from plan.alloc.");
    this.#bound.submit();
    return this.outputs;
  }

  async done(): Promise<void> {
    this.live("done");
    const fault = await this.#bound.finish([]);
    if (fault !== undefined) throw faultError(this.op, this.#axes, fault);
  }

  async runAsync(): Promise<StepOutputs<O>> {
    this.ready("runAsync");
    for (const { name, host, length } of this.#mirrors) if (host.length !== length) throw detachedError(this.op, name, length, host.length);
    return this.alone(async () => {
      for (const { role, host, memory } of this.#mirrors) if (role !== "out" || this.#partial.size > 0) memory.write(bytesOf(host));
      this.#bound.submit();
      // To arrays of our own: the caller's may be transferred away before the device is done.
      const back: (Readback & { readonly mirror: Mirror })[] = [];
      for (const mirror of this.#mirrors)
        if (mirror.role !== "in") back.push({ mirror, memory: mirror.memory, target: new Uint8Array(mirror.host.byteLength) });
      const fault = await this.#bound.finish(back);
      this.live("runAsync");
      for (const { target, mirror } of back) {
        const { name, host, length } = mirror;
        if (host.length !== length) throw detachedError(this.op, name, length, host.length);
        bytesOf(host).set(target);
      }
      if (fault !== undefined) throw faultError(this.op, this.#axes, fault);
      return this.outputs;
    });
  }

  encode(recorder: DeviceRecorder): void {
    this.ready("encode");
    this.#resident("encode", "Bind tensors from plan.alloc, or the runtime's own buffers: { data: buffer, dtype }.");
    this.#bound.encode(recorder);
  }

  async time(): Promise<number> {
    this.ready("time");
    this.#resident("time", "Bind tensors from plan.alloc.");
    const start = performance.now();
    const device = await this.#bound.time();
    return device ?? (performance.now() - start) * 1e3;
  }

  set(name: SettableOf<O> & string, value: number): this {
    this.ready("set");
    checkSetting(this.op, name, value, this.#axes);
    this.#bound.set(name, asStored(this.op, name, value));
    const capacity = this.#axes[name];
    if (capacity === undefined) return this;
    if (value < capacity) this.#partial.add(name);
    else this.#partial.delete(name);
    return this;
  }

  protected release(): void {
    this.#bound.release();
    for (const { memory } of this.#mirrors) memory.release();
  }

  protected override ready(method: string): void {
    super.ready(method);
    const { lost } = this.#backend.device;
    if (lost !== undefined) throw lostError(this.op.id, this.#backend.id, lost);
  }

  #resident(method: string, hint: string): void {
    if (this.#mirrors.length === 0) return;
    throw new HotsetError("argument", {
      where: `${this.op.id}: step.${method}`,
      expected: `every tensor to lie on ${this.#backend.id}`,
      received: `${this.#mirrors.map(({ name }) => name).join(", ")} on the host`,
      hint,
    });
  }
}

/** The error for work on a device that is gone. */
export const lostError = (where: string, backend: string, reason: string): HotsetError =>
  new HotsetError("device", {
    where,
    expected: `${backend} to have its device`,
    received: `one that was lost: ${reason}`,
    hint: `Load the backend again, which asks for a new device, and plan on it; tensors of the old one are gone.`,
  });

function stays(op: Op, backend: DeviceBackend, name: string): never {
  throw new HotsetError("argument", {
    where: `${op.id}: outputs.${name}`,
    expected: "an output on the host",
    received: `one that stays on ${backend.id}`,
    hint: "Use await tensor.download() on the tensor that was bound.",
  });
}
