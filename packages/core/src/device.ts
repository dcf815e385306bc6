/**
 * The device part of the contract, for WebGPU and CUDA alike: memory that the host cannot look into, kernels that
 * are compiled before they are bound, runs that are queued, and one wait that brings back outputs and the status.
 */
import type { BindingOf, Fault } from "./backend.js";

export interface DeviceTraits {
  /** Drawn by the CPU (SwiftShader, lavapipe): `auto` never picks it. */
  readonly software: boolean;
  /** Why nothing runs on it any more; undefined while it lives. */
  readonly lost: string | undefined;
}

/** Bytes on a device. Copies and runs on one device happen in the order in which they are queued. */
export interface DeviceMemory {
  readonly bytes: number;
  /** Queues a copy to the start of this memory; `source` may change once this returns. */
  write(source: Uint8Array): void;
  /** Waits for what is queued, and copies the start of this memory to `target`. */
  read(target: Uint8Array): Promise<void>;
  /** Would a kernel that writes one of them disturb the other? */
  sharesWith(other: DeviceMemory): boolean;
  /** A part of it, from a byte offset that the device can bind (256 on WebGPU); it lives as long as the whole. */
  part(offset: number, bytes: number): DeviceMemory;
  release(): void;
}

/** A runtime's own buffer, taken as it is: a GPUBuffer, or a CUDA device pointer. */
export type DeviceBuffer =
  | { readonly size: number; readonly usage: number; readonly mapState: string }
  | { readonly pointer: bigint; readonly bytes: number };

/** What a caller hands over to have a run recorded in it: a GPUComputePassEncoder, a GPUCommandEncoder, a CUDA stream. */
export type DeviceRecorder = object;

export type DeviceBinding = BindingOf<DeviceMemory>;

/** GB/s of uploads, each with its wait, as before a run: for a backend's `copy` probe. The memory is released. */
export async function measureUploads(memory: DeviceMemory, wait: () => Promise<unknown>): Promise<number> {
  const data = new Uint8Array(memory.bytes);
  try {
    const times: number[] = [];
    for (let i = 0; i < 4; i++) {
      const start = performance.now();
      memory.write(data);
      await wait();
      times.push(performance.now() - start);
    }
    // The first is no measure.
    return data.length / (Math.min(...times.slice(1)) * 1e6);
  } finally {
    memory.release();
  }
}

/** Memory to bring to the host, and where to. */
export interface Readback {
  readonly memory: DeviceMemory;
  readonly target: Uint8Array;
}

/** A kernel with its memory. */
export interface DeviceBoundKernel {
  /** Queues one run and returns. */
  submit(): void;
  /** Records one run into the caller's own pass, encoder or stream; the caller submits it. */
  encode(recorder: DeviceRecorder): void;
  /** Waits for what was queued, with memory read back on the way; the first fault since the last wait. Throws HotsetError. */
  finish(readbacks: readonly Readback[]): Promise<Fault | undefined>;
  /** One run, timed on the device; undefined where it has no clock. */
  time(): Promise<number | undefined>;
  /** Changes a scalar or the actual size of a live axis for the runs queued from now on; checked before. */
  set(name: string, value: number): void;
  release(): void;
}

/** A kernel chosen for an op, variant and axes. */
export interface DeviceKernel {
  readonly name: string;
  /** Same inputs, same bits, on this device. */
  readonly deterministic: boolean;
  /** Compiles; a second time it is there at once. Throws HotsetError. */
  prepare(): Promise<void>;
  bind(binding: DeviceBinding): DeviceBoundKernel;
}
