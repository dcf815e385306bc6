/** Backend `webgpu`: WGSL kernels in browsers, in Node with Dawn (npm `webgpu`), and in Deno. */
import {
  byteLength,
  type DeviceBackend,
  type DeviceBatch,
  type DeviceBinding,
  type DeviceBoundKernel,
  type DeviceBuffer,
  type DeviceKernel,
  type DeviceMemory,
  type DeviceTraits,
  type DType,
  type KernelRequest,
  type Probe,
  portDType,
  portShape,
  presentTensors,
  type TensorPort,
} from "@hotset/core/backend";
import { WebgpuStep } from "./bound.js";
import { WebgpuDevice } from "./device.js";
import { fetchPass } from "./faults.js";
import { describeAdapter, type Found, findDevice, tunablesOf, usedFeatures, type WebgpuSettings } from "./find.js";
import { bindingAlign, usage } from "./flags.js";
import { kernels } from "./kernels.js";
import { WebgpuMemory } from "./memory.js";
import { measure } from "./probe.js";
import type { Program } from "./program.js";

export type { WebgpuSettings } from "./find.js";
export { kernels } from "./kernels.js";

/** Makes the backend. Throws BackendLoadError where there is no adapter, or in Node no npm package `webgpu`. */
export async function webgpu(settings: WebgpuSettings = {}): Promise<WebgpuBackend> {
  return new WebgpuBackend(await findDevice(settings));
}

export class WebgpuBackend implements DeviceBackend {
  readonly id = "webgpu" as const;
  readonly target: string;
  readonly name: string;
  readonly features: readonly string[];
  readonly threads = 0;
  readonly device: DeviceTraits;
  readonly #device: WebgpuDevice;

  constructor({ device, info, borrowed, tunables }: Found) {
    const { target, name, software } = describeAdapter(info);
    const owner = new WebgpuDevice(device, borrowed, tunablesOf(software, tunables));
    this.#device = owner;
    this.target = target;
    this.name = `webgpu ${target} (${name}${software ? ", software" : ""})`;
    this.features = usedFeatures.filter((feature) => owner.facts.features.has(feature));
    this.device = {
      software,
      get lost() {
        return owner.lost;
      },
    };
  }

  /** The device that kernels run on: for making buffers that they take as they are. */
  get gpuDevice(): GPUDevice {
    return this.#device.device;
  }

  kernel(request: KernelRequest): DeviceKernel | string {
    const { op, axes, variant } = request;
    if (this.#device.lost !== undefined) return `its device was lost: ${this.#device.lost}`;
    const row = kernels[op.id];
    if (!row) return op.cpuByDesign ? `cpu by design: ${op.cpuByDesign}` : `no WGSL kernel for ${op.id}`;
    const { maxBufferSize } = this.#device.facts;
    for (const name of presentTensors(op, variant)) {
      const bytes = byteLength(portDType(op, name, variant) as DType, portShape(op.ports[name] as TensorPort, axes));
      if (bytes > maxBufferSize) return `${name} takes ${bytes} bytes, more than one buffer of this device (${maxBufferSize})`;
    }
    const program = row(request, this.#device.facts);
    return typeof program === "string" ? program : new WebgpuKernel(this.#device, program);
  }

  alloc(bytes: number): DeviceMemory {
    return this.#device.alloc(bytes);
  }

  owns(memory: DeviceMemory): boolean {
    return memory instanceof WebgpuMemory && memory.device === this.#device;
  }

  /** A buffer of another device is found by WebGPU itself, at the first run. */
  adopt(buffer: DeviceBuffer, offset: number): DeviceMemory | string {
    if ("pointer" in buffer) return "a CUDA pointer";
    const given = buffer as unknown as GPUBuffer;
    if (offset % bindingAlign) return `a GPUBuffer from byte ${offset}, which is no multiple of ${bindingAlign}`;
    if (offset > given.size) return `a GPUBuffer of ${given.size} bytes from byte ${offset}`;
    if (!(given.usage & usage.storage)) return "a GPUBuffer without GPUBufferUsage.STORAGE";
    return new WebgpuMemory(this.#device, given, offset, given.size - offset, { own: false, check: Promise.resolve(undefined) });
  }

  batch(): DeviceBatch {
    return this.#device.batch();
  }

  probe(probe: Probe): Promise<number> {
    return measure(this.#device, probe);
  }

  /** Also destroys the device, unless it is the application's. */
  dispose(): void {
    this.#device.dispose();
  }
}

class WebgpuKernel implements DeviceKernel {
  readonly name: string;
  /** Lists and states are merged in order; sums are in column order. */
  readonly deterministic = true;
  readonly #device: WebgpuDevice;
  readonly #program: Program;

  constructor(device: WebgpuDevice, program: Program) {
    this.#device = device;
    this.#program = program;
    this.name = program.name;
  }

  async prepare(): Promise<void> {
    const { passes, faults } = this.#program;
    const wanted = [...Object.values(passes), ...(faults ? [fetchPass] : [])];
    await Promise.all(wanted.map((pass) => this.#device.pipelines.prepare(pass)));
  }

  bind(binding: DeviceBinding): DeviceBoundKernel {
    return new WebgpuStep(this.#device, this.#program, binding);
  }
}
