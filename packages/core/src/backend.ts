/**
 * What a backend is: it answers whether it can run an op (with a reason when not), hands out memory it reads
 * in place, and binds kernels to buffers. It checks nothing that a plan has checked; it never throws from a
 * kernel: faults come back as values.
 */
import type { DeviceBuffer, DeviceKernel, DeviceMemory, DeviceTraits } from "./device.js";
import type { HostArray } from "./dtype.js";
import type { AnyAxes, AnyVariant, Op } from "./op/define.js";
import type { Allocation } from "./tensor.js";

export type BackendId = "cuda" | "native" | "webgpu" | "wasm" | "js";

export interface KernelRequest {
  readonly op: Op;
  /** Capacities, all checked. */
  readonly axes: AnyAxes;
  /** Complete. */
  readonly variant: AnyVariant;
}

/** A fault a kernel met in its data. The entry was skipped; everything else was done. */
export interface Fault {
  readonly code: "index" | "memory" | "internal";
  /** The tensor port, where it is known. */
  readonly port: string;
  /** Position in that port, and the value found there. */
  readonly index: number;
  readonly value: number;
}

/** What a kernel is bound to; `T` is how this kind of backend holds a tensor. */
export interface BindingOf<T> {
  readonly op: Op;
  readonly axes: AnyAxes;
  readonly variant: AnyVariant;
  /** By port; absent optionals are missing. Sizes are checked. */
  readonly tensors: Readonly<Record<string, T>>;
  /** Row pitch of every pitched port, in storage elements. */
  readonly pitch: Readonly<Record<string, number>>;
  /** Every scalar. */
  readonly scalars: Readonly<Record<string, number>>;
}

export type Binding = BindingOf<HostArray>;

/** A kernel with its buffers. Runs are ordered; `run` allocates nothing. */
export interface BoundKernel {
  run(): Fault | undefined;
  /** Off the calling thread where the backend can. The views must be shared or the backend's own. */
  start(): Promise<Fault | undefined>;
  /** Changes a scalar or the actual size of a live axis; checked before. */
  set(name: string, value: number): void;
  release(): void;
}

/** A kernel chosen for an op, variant and axes. */
export interface Kernel {
  readonly name: string;
  /** Same inputs, same bits, whatever the threads. */
  readonly deterministic: boolean;
  bind(binding: Binding): BoundKernel;
  /** Bind, run and release in one: for backends where that is cheaper. */
  once?(binding: Binding): Fault | undefined;
}

/** A measurement of the machine through this backend's own code. */
export type Probe =
  | { readonly kind: "read"; readonly bytes: number }
  | { readonly kind: "madd" }
  | { readonly kind: "copy"; readonly bytes: number }
  | { readonly kind: "madd-i8" };

interface BackendBase {
  readonly id: BackendId;
  /** The instruction set, build or device, as a column of support.json names it: `avx2`, `simd`, `js`. */
  readonly target: string;
  /** One line for people: `native avx2, 2 threads`. */
  readonly name: string;
  readonly features: readonly string[];
  /** CPU threads that kernels run on; 0 for a device. */
  readonly threads: number;
  dispose(): void;
}

/** A backend on the CPU: kernels read host memory and end before `run` returns. */
export interface HostBackend extends BackendBase {
  readonly device?: undefined;
  /** Reads any typed array where it lies; otherwise arrays not made by `alloc` are copied in and out. */
  readonly inPlace: boolean;
  /** A kernel, or the reason why there is none. */
  kernel(request: KernelRequest): Kernel | string;
  /** Memory it reads in place, 64-byte aligned, zeroed. Throws HotsetError with code `memory` when there is none left. */
  alloc(bytes: number): Allocation;
  /** Was this view made by `alloc`? */
  owns(view: ArrayBufferView): boolean;
  /** GB/s for `read` and `copy`, 10^9 additions and multiplications a second for `madd`. */
  probe(probe: Probe): number;
  /** The first bytes of an open file (its descriptor), read as they are touched; writes stay in this process. */
  map?(file: number, bytes: number): Uint8Array | undefined;
}

export interface DeviceBatch {
  /** Hands over what is held back. A second time does nothing. */
  end(): void;
}

/** A backend on a device: kernels read device memory, runs are queued, and a wait is a promise (device.ts). */
export interface DeviceBackend extends BackendBase {
  readonly device: DeviceTraits;
  /** A kernel, or the reason why there is none; the reason too once the device is lost. Compiles nothing. */
  kernel(request: KernelRequest): DeviceKernel | string;
  /** Zeroed memory. Throws HotsetError with code `memory`, or the error comes with the first wait that concerns it. */
  alloc(bytes: number): DeviceMemory;
  /** A runtime's own buffer as memory of this backend, from a byte offset on; the reason where it cannot be. */
  adopt(buffer: DeviceBuffer, offset: number): DeviceMemory | string;
  /** Was this memory made by this backend, on this device? */
  owns(memory: DeviceMemory): boolean;
  /**
   * From now on runs may be held back and go to the device together, in their order, until `end`: where handing over a run costs
   * more than the run. What must come between them (uploads, waits, other recorders) does.
   */
  batch?(): DeviceBatch;
  /** As for the CPU; `copy` is from the host. */
  probe(probe: Probe): Promise<number>;
}

export type Backend = HostBackend | DeviceBackend;

export const isDevice = (backend: Backend): backend is DeviceBackend => backend.device !== undefined;

/** A backend; or how to load it, which may throw: it is then listed as missing, with the reason. */
export type BackendSource = Backend | (() => Backend | Promise<Backend>) | BackendLoader;

export interface BackendLoader {
  readonly id: string;
  load(): Backend | Promise<Backend>;
}
