/** Backend `cuda`: kernels for NVIDIA GPUs, compiled ahead; runs are queued on a stream of its own. */
import {
  BackendLoadError,
  type DeviceBackend,
  type DeviceBuffer,
  type DeviceKernel,
  type DeviceMemory,
  type DeviceTraits,
  type HotsetError,
  type KernelRequest,
  Params,
  type Probe,
  presentTensors,
  symbolOf,
} from "@hotset/core/backend";
import { type Addon, addonFile, type Description, loadAddon } from "./addon.js";
import type { ChildSettings } from "./ask.js";
import { CudaDevice } from "./device.js";
import { CudaKernel } from "./kernel.js";
import { alignment, CudaMemory } from "./memory.js";
import { measure } from "./probe.js";

export { CudaMemory } from "./memory.js";

export interface CudaSettings {
  /** Which GPU, by CUDA's order. Default 0. */
  readonly device?: number;
  /** The kernels compiled for the CPU: for tests, in a checkout of the repository. Default false. */
  readonly emulated?: boolean;
  /** Another addon file, with its manifest.json beside it: for tests. */
  readonly addon?: string;
  /** The process in which the addon is tried first. */
  readonly child?: ChildSettings;
}

/** Makes the backend. Throws BackendLoadError where there is no addon, no GPU, or a driver that does not work. */
export async function cuda({ device = 0, emulated = false, addon: file, child = {} }: CudaSettings = {}): Promise<CudaBackend> {
  if (!Number.isInteger(device) || device < 0)
    throw new BackendLoadError({ where: "cuda", expected: "device to be a whole number of 0 or more", received: `${device}` });
  const { addon, description } = await loadAddon(file ?? addonFile(emulated), device, child);
  return new CudaBackend(addon, description, device);
}

export class CudaBackend implements DeviceBackend {
  readonly id = "cuda" as const;
  /** `sm_90`, or `emulated`. */
  readonly target: string;
  readonly name: string;
  readonly features: readonly string[];
  readonly threads = 0;
  readonly device: DeviceTraits;
  readonly #device: CudaDevice;

  constructor(addon: Addon, description: Description, index: number) {
    const owner = opened(addon, description, index);
    const { name, arch, bytes } = owner.info;
    const { emulated, runtime, driver } = description;
    this.#device = owner;
    this.target = emulated ? "emulated" : `sm_${arch}`;
    this.name = `cuda ${this.target}${emulated ? " on the CPU" : ` (${name})`}`;
    this.features = [`${(bytes / 2 ** 30).toFixed(0)} GiB`, `CUDA ${version(runtime)}`, `driver for CUDA ${version(driver)}`];
    this.device = {
      software: emulated,
      get lost() {
        return owner.lost;
      },
    };
  }

  /** The stream that runs are queued on, for ordering other work by events: it does not wait for the default stream. */
  get stream(): bigint {
    return this.#device.attempt("cuda: stream", () => this.#device.addon.stream(this.#device.queue));
  }

  kernel({ op, axes, variant }: KernelRequest): DeviceKernel | string {
    const { lost, kernels, addon, queue } = this.#device;
    if (lost !== undefined) return `its device was lost: ${lost}`;
    const symbol = symbolOf(op.id);
    const bytes = kernels[symbol];
    if (bytes === undefined) return op.cpuByDesign ? `cpu by design: ${op.cpuByDesign}` : `no CUDA kernel for ${op.id}`;
    const params = new Params(op, "c64");
    if (bytes !== params.bytes.length) return `the addon was built for another version of ${op.id}`;
    params.fill(axes, variant, {}, {});
    // A kernel may choose by what is there; the addresses come with bind.
    for (const name of presentTensors(op, variant)) params.setPointer(name, 1);
    const plan = this.#device.attempt("cuda: plan", () => addon.plan(queue, symbol, params.bytes));
    return typeof plan === "string" ? plan : new CudaKernel(this.#device, { symbol, ...plan });
  }

  alloc(bytes: number): CudaMemory {
    return CudaMemory.alloc(this.#device, bytes);
  }

  owns(memory: DeviceMemory): boolean {
    return memory instanceof CudaMemory && memory.device === this.#device;
  }

  /** The pointer stays the application's; what was queued on other streams before is theirs to order (`stream`, `encode`). */
  adopt(buffer: DeviceBuffer, offset: number): DeviceMemory | string {
    if (!("pointer" in buffer)) return "a GPUBuffer";
    const { pointer, bytes } = buffer;
    if (pointer <= 0n || pointer >= 1n << 64n) return `a pointer of ${pointer}`;
    if (!Number.isSafeInteger(bytes) || bytes < 0) return `a pointer to ${bytes} bytes`;
    if (offset > bytes) return `a pointer to ${bytes} bytes from byte ${offset}`;
    const start = pointer + BigInt(offset);
    if (start % BigInt(alignment)) return `a pointer that, with its offset, is no multiple of ${alignment} bytes`;
    const problem = this.#device.attempt("cuda: pointer", () => this.#device.addon.pointer(this.#device.queue, pointer, bytes));
    return problem ?? new CudaMemory(this.#device, start, bytes - offset);
  }

  probe(probe: Probe): Promise<number> {
    return measure(this.#device, probe);
  }

  dispose(): void {
    this.#device.dispose();
  }
}

/** A device that cannot be opened is a backend that cannot be loaded. */
function opened(addon: Addon, description: Description, index: number): CudaDevice {
  try {
    return new CudaDevice(addon, description, index);
  } catch (error) {
    const { received } = error as HotsetError;
    throw new BackendLoadError({
      where: "cuda",
      expected: "to open the device",
      received: received ?? (error as Error).message,
      hint: "A device that a process has lost is there again for a new process.",
      cause: error,
    });
  }
}

const version = (number: number): string => `${Math.floor(number / 1000)}.${Math.floor((number % 1000) / 10)}`;
