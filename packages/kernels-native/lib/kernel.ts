/** A C++ kernel of one plan, and its steps. */
import {
  type Binding,
  type BoundKernel,
  type Fault,
  type HostArray,
  HotsetError,
  type Kernel,
  type Op,
  Params,
  pointerOffsets,
  tensorNames,
} from "@hotset/core/backend";
import type { Addon, AddonFault } from "./addon.js";

export interface KernelChoice {
  readonly isa: string;
  readonly symbol: string;
  readonly threads: number;
  /** Name of the kernel that this shape gets. */
  readonly kernel: string;
  readonly scratchBytes: number;
}

export class NativeKernel implements Kernel {
  readonly name: string;
  readonly deterministic = true;
  readonly addon: Addon;
  readonly choice: KernelChoice;
  /** Tensor ports in the order of the parameter struct, and where their pointers lie in it. */
  readonly ports: readonly string[];
  readonly offsets: Uint32Array;
  readonly #params: Params;

  constructor(addon: Addon, choice: KernelChoice, op: Op) {
    this.name = choice.kernel;
    this.addon = addon;
    this.choice = choice;
    this.ports = tensorNames(op);
    this.offsets = Uint32Array.from(pointerOffsets(op, "c64"));
    this.#params = new Params(op, "c64");
  }

  bind(binding: Binding): BoundKernel {
    return new NativeStep(this, binding);
  }

  once({ op, axes, variant, tensors, pitch, scalars }: Binding): Fault | undefined {
    const { isa, symbol, threads, scratchBytes } = this.choice;
    const { bytes } = this.#params.fill(axes, variant, pitch, scalars);
    const result = this.addon.call(isa, symbol, bytes, threads, scratchBytes, this.offsets, this.views(tensors));
    if (typeof result === "number") throw this.noMemory(op);
    return this.fault(result);
  }

  /** The tensors in the order of the ports; absent ones are undefined. */
  views(tensors: Readonly<Record<string, HostArray>>): (HostArray | undefined)[] {
    return this.ports.map((name) => tensors[name]);
  }

  fault(found: AddonFault | undefined): Fault | undefined {
    if (found === undefined) return undefined;
    const [code, port, index, value] = found;
    return { code: code === 1 ? "index" : "memory", port: this.ports[port] ?? "?", index, value };
  }

  noMemory(op: Op): HotsetError {
    return new HotsetError("memory", {
      where: `${op.id} on native`,
      expected: `${this.choice.scratchBytes} bytes of scratch`,
      received: "no memory",
      hint: "Plan smaller axes, or fewer threads.",
    });
  }
}

/** Releases steps whose owner was collected without `dispose`. */
const collected = new FinalizationRegistry<() => void>((release) => release());

class NativeStep implements BoundKernel {
  readonly #kernel: NativeKernel;
  readonly #params: Params;
  readonly #step: number;
  #live = true;

  constructor(kernel: NativeKernel, { op, axes, variant, tensors, pitch, scalars }: Binding) {
    const { addon, choice, offsets } = kernel;
    this.#kernel = kernel;
    this.#params = new Params(op, "c64").fill(axes, variant, pitch, scalars);
    const step = addon.bind(
      choice.isa,
      choice.symbol,
      this.#params.bytes,
      choice.threads,
      choice.scratchBytes,
      offsets,
      kernel.views(tensors),
    );
    if (step < 0) throw kernel.noMemory(op);
    this.#step = step;
    collected.register(this, () => addon.release(step), this);
  }

  run(): Fault | undefined {
    const fault = this.#kernel.addon.run(this.#step);
    return fault === undefined ? undefined : this.#kernel.fault(fault);
  }

  async start(): Promise<Fault | undefined> {
    return this.#kernel.fault(await this.#kernel.addon.start(this.#step));
  }

  set(name: string, value: number): void {
    this.#params.set(name, value);
  }

  release(): void {
    if (!this.#live) return;
    this.#live = false;
    collected.unregister(this);
    this.#kernel.addon.release(this.#step);
  }
}
