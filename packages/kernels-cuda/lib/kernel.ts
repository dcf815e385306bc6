/** A CUDA kernel of one plan, and its steps. */
import {
  type AnyVariant,
  type DeviceBinding,
  type DeviceBoundKernel,
  type DeviceKernel,
  type DeviceRecorder,
  type Fault,
  HotsetError,
  type Op,
  Params,
  pointerOffsets,
  portDType,
  type Readback,
  tensorNames,
} from "@hotset/core/backend";
import type { Addon } from "./addon.js";
import { type CudaDevice, collected } from "./device.js";
import type { CudaMemory } from "./memory.js";

export interface KernelChoice {
  readonly symbol: string;
  /** Name of the kernel that this shape gets. */
  readonly kernel: string;
  readonly scratchBytes: number;
}

export class CudaKernel implements DeviceKernel {
  readonly name: string;
  /** Work is cut by shape, and partial results are merged in order. */
  readonly deterministic = true;
  readonly #device: CudaDevice;
  readonly #choice: KernelChoice;

  constructor(device: CudaDevice, choice: KernelChoice) {
    this.#device = device;
    this.#choice = choice;
    this.name = choice.kernel;
  }

  /** Kernels come compiled with the addon. */
  async prepare(): Promise<void> {
    this.#device.live("cuda: plan");
  }

  bind(binding: DeviceBinding): DeviceBoundKernel {
    return new CudaStep(this.#device, this.#choice, binding);
  }
}

// Made outside of the constructor, whose other functions hold `this`.
const releasing = (addon: Addon, queue: number, step: number) => () => addon.release(queue, step);

class CudaStep implements DeviceBoundKernel {
  readonly #device: CudaDevice;
  readonly #op: Op;
  readonly #variant: AnyVariant;
  readonly #ports: readonly string[];
  readonly #params: Params;
  readonly #step: number;
  /** Kept alive with the step. */
  readonly tensors: DeviceBinding["tensors"];
  #live = true;

  constructor(device: CudaDevice, { symbol, scratchBytes }: KernelChoice, { op, axes, variant, tensors, pitch, scalars }: DeviceBinding) {
    const { addon, queue } = device;
    this.#device = device;
    this.#op = op;
    this.#variant = variant;
    this.tensors = tensors;
    this.#ports = tensorNames(op);
    this.#params = new Params(op, "c64").fill(axes, variant, pitch, scalars);
    const addresses = BigUint64Array.from(this.#ports, (name) => (tensors[name] as CudaMemory | undefined)?.pointer ?? 0n);
    const offsets = Uint32Array.from(pointerOffsets(op, "c64"));
    const step = device.attempt(`${op.id} on cuda`, () => addon.bind(queue, symbol, this.#params.bytes, scratchBytes, offsets, addresses));
    this.#step = step;
    collected.register(this, releasing(addon, queue, step), this);
  }

  submit(): void {
    this.#device.attempt(`${this.#op.id} on cuda`, () => this.#device.addon.submit(this.#device.queue, this.#step));
  }

  encode(recorder: DeviceRecorder): void {
    const { stream } = recorder as { readonly stream?: unknown };
    if (typeof stream !== "bigint" || stream < 0n)
      throw new HotsetError("argument", {
        where: "cuda: encode",
        expected: "a CUDA stream: { stream: bigint }",
        received: `an object with ${Object.keys(recorder).join(", ") || "nothing"}`,
      });
    this.#device.attempt(`${this.#op.id} on cuda`, () => this.#device.addon.encode(this.#device.queue, this.#step, stream));
  }

  async finish(readbacks: readonly Readback[]): Promise<Fault | undefined> {
    const addresses = BigUint64Array.from(readbacks, ({ memory }) => (memory as CudaMemory).pointer);
    const targets = readbacks.map(({ target }) => target);
    const found = await this.#device.wait(`${this.#op.id} on cuda`, this.#step, addresses, targets);
    if (found === undefined) return undefined;
    const [at, index, bits] = found;
    const port = this.#ports[at] ?? "?";
    // The status holds 32 bits of the value.
    const value = portDType(this.#op, port, this.#variant) === "i32" ? bits | 0 : bits;
    return { code: "index", port, index, value };
  }

  time(): Promise<number | undefined> {
    return this.#device.promised(`${this.#op.id} on cuda`, () => this.#device.addon.time(this.#device.queue, this.#step));
  }

  /** The addon reads the parameters at each run. */
  set(name: string, value: number): void {
    this.#params.set(name, value);
  }

  release(): void {
    if (!this.#live) return;
    this.#live = false;
    collected.unregister(this);
    if (this.#device.lost === undefined) this.#device.addon.release(this.#device.queue, this.#step);
  }
}
