/** A GPUDevice with what the kernels of one backend share: memory, staging buffers, pipelines, the wait, and its end. */
import { type DeviceBatch, HotsetError, lostError, type Readback } from "@hotset/core/backend";
import { mapModeRead, roundUp, usage } from "./flags.js";
import { WebgpuMemory } from "./memory.js";
import { Pipelines } from "./pipelines.js";
import { BufferPool } from "./pool.js";
import type { DeviceFacts, Tunables } from "./program.js";

/** Bytes that one wait brings back at most: a download of more goes in parts. */
const stagingBytes = 64 << 20;

/** What a wait brings back; cleared once it is copied, if it says so. */
export interface DeviceReadback extends Readback {
  readonly clear?: boolean;
}

/** An error that WebGPU reports later, or nothing. */
export type Check = Promise<HotsetError | undefined>;

export class WebgpuDevice {
  readonly device: GPUDevice;
  readonly facts: DeviceFacts;
  readonly pipelines: Pipelines;
  readonly pool: BufferPool;
  /** Is the device the application's own? Then it outlives the backend. */
  readonly #borrowed: boolean;
  #lost: string | undefined;
  #batches = 0;
  /** Runs that a batch has not submitted yet. */
  #held: Held | undefined;
  /** Rejects when the device is gone. */
  readonly #ended: Promise<never>;

  constructor(device: GPUDevice, borrowed: boolean, tunables: Tunables) {
    this.device = device;
    this.#borrowed = borrowed;
    const { limits } = device;
    this.facts = {
      features: new Set(device.features as unknown as Iterable<string>),
      maxStorageBufferBindingSize: Math.floor(Math.min(limits.maxStorageBufferBindingSize, tunables.bindingBytes) / 256) * 256,
      maxBufferSize: limits.maxBufferSize,
      maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
      maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
      tunables,
    };
    this.pipelines = new Pipelines(this);
    this.pool = new BufferPool(device);
    this.#ended = device.lost.then(({ reason, message }) => {
      this.#lost ??= message || reason || "no reason was given";
      throw this.lostError();
    });
    this.#ended.catch(() => {});
  }

  get lost(): string | undefined {
    return this.#lost;
  }

  lostError(where = "webgpu"): HotsetError {
    return lostError(where, "webgpu", this.#lost ?? "no reason was given");
  }

  /** Throws where the device is gone. */
  live(where: string): void {
    if (this.#lost !== undefined) throw this.lostError(where);
  }

  /** Zeroed memory. What goes wrong on the GPU's side comes with the first wait that concerns it. */
  alloc(bytes: number): WebgpuMemory {
    this.live("webgpu: alloc");
    const size = Math.max(16, roundUp(bytes, 16));
    if (size > this.facts.maxBufferSize)
      throw new HotsetError("memory", {
        where: "webgpu memory",
        expected: `at most ${this.facts.maxBufferSize} bytes in one buffer of this device`,
        received: `${bytes}`,
        hint: "Plan smaller axes, or use a backend on the CPU.",
      });
    const { result, check } = this.checked("out-of-memory", () =>
      this.device.createBuffer({ size, usage: usage.storage | usage.copySource | usage.copyTarget }),
    );
    return new WebgpuMemory(this, result, 0, bytes, { own: true, check });
  }

  /** Does work whose errors WebGPU tells later. */
  checked<T>(filter: GPUErrorFilter, work: () => T): { result: T; check: Check } {
    this.device.pushErrorScope(filter);
    let result: T;
    try {
      result = work();
    } catch (cause) {
      this.device.popErrorScope().catch(() => {});
      if (cause instanceof HotsetError) throw cause;
      // Dawn throws a RangeError where a mapping cannot be had, and an OperationError for a device that is gone.
      throw asHotsetError(cause as Error, cause instanceof RangeError ? "out-of-memory" : "internal");
    }
    const check = this.device.popErrorScope().then(
      (error) => (error ? asHotsetError(error, filter) : undefined),
      () => undefined,
    );
    return { result, check };
  }

  /** Records dispatches into a pass: one of its own, or that of the open batch. */
  run(record: (pass: GPUComputePassEncoder) => void): Check {
    if (this.#batches === 0)
      return this.checked("validation", () => {
        const encoder = this.device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        record(pass);
        pass.end();
        this.device.queue.submit([encoder.finish()]);
      }).check;
    this.#held ??= this.#hold();
    record(this.#held.pass);
    return this.#held.check;
  }

  /** Holds back runs until `end`, or until something must come after them. */
  batch(): DeviceBatch {
    this.#batches++;
    let ended = false;
    return {
      end: () => {
        if (ended) return;
        ended = true;
        if (--this.#batches === 0) this.flush();
      },
    };
  }

  /** Submits what a batch holds back: before uploads, waits, foreign recorders, and before a buffer is given back. */
  flush(): void {
    const held = this.#held;
    if (!held) return;
    this.#held = undefined;
    try {
      const { check } = this.checked("validation", () => {
        held.pass.end();
        this.device.queue.submit([held.encoder.finish()]);
      });
      check.then(held.tell);
    } catch (error) {
      held.tell(error as HotsetError);
      throw error;
    }
  }

  #hold(): Held {
    const encoder = this.device.createCommandEncoder();
    let tell: Held["tell"] = () => {};
    const check: Check = new Promise((resolve) => {
      tell = resolve;
    });
    return { encoder, pass: encoder.beginComputePass(), check, tell };
  }

  /** Waits for what is queued and brings memory to the host. Throws the first error of the checks, or the loss of the device. */
  async wait(checks: readonly Check[], readbacks: readonly DeviceReadback[]): Promise<void> {
    this.live("webgpu: done");
    this.flush();
    const work = readbacks.length ? this.#download(readbacks) : this.device.queue.onSubmittedWorkDone();
    // A failed run must not be taken for its output, whichever is told first.
    const [errors, failed] = await Promise.race([Promise.all([Promise.all(checks), settled(work)]), this.#ended]);
    const error = errors.find((one) => one !== undefined);
    if (error) throw error;
    // The loss may be told just after the wait that it ended.
    if (failed) await new Promise((resolve) => setTimeout(resolve, 5));
    this.live("webgpu: done");
    if (failed) throw failed instanceof HotsetError ? failed : asHotsetError(failed, "internal");
  }

  async #download(readbacks: readonly DeviceReadback[]): Promise<void> {
    let pieces: Piece[] = [];
    let size = 0;
    for (const { memory, target, clear = false } of readbacks) {
      const source = memory as WebgpuMemory;
      for (let at = 0; at < target.length; at += stagingBytes) {
        const part = target.subarray(at, at + stagingBytes);
        if (size + part.length > stagingBytes) {
          await this.#fetch(pieces, size);
          pieces = [];
          size = 0;
        }
        pieces.push({ buffer: source.buffer, from: source.offset + at, at: size, target: part, clear });
        size += roundUp(part.length, 16);
      }
    }
    if (pieces.length) await this.#fetch(pieces, size);
    else await this.device.queue.onSubmittedWorkDone();
  }

  async #fetch(pieces: readonly Piece[], size: number): Promise<void> {
    const staging = this.pool.take(size, usage.mapRead | usage.copyTarget);
    const { check } = this.checked("validation", () => {
      const encoder = this.device.createCommandEncoder();
      for (const { buffer, from, at, target, clear } of pieces) {
        const bytes = roundUp(target.length, 4);
        encoder.copyBufferToBuffer(buffer, from, staging, at, bytes);
        if (clear) encoder.clearBuffer(buffer, from, bytes);
      }
      this.device.queue.submit([encoder.finish()]);
    });
    try {
      await staging.mapAsync(mapModeRead, 0, size);
      const error = await check;
      if (error) throw error;
      const mapped = new Uint8Array(staging.getMappedRange(0, size));
      for (const { at, target } of pieces) target.set(mapped.subarray(at, at + target.length));
      staging.unmap();
      this.pool.give(staging);
    } catch (cause) {
      staging.destroy();
      throw cause;
    }
  }

  dispose(): void {
    this.#lost ??= "its backend was disposed";
    this.pool.dispose();
    if (!this.#borrowed) this.device.destroy();
  }
}

interface Held {
  readonly encoder: GPUCommandEncoder;
  readonly pass: GPUComputePassEncoder;
  /** What WebGPU says of them once they are submitted. */
  readonly check: Check;
  readonly tell: (error: HotsetError | undefined) => void;
}

interface Piece {
  readonly buffer: GPUBuffer;
  readonly from: number;
  readonly at: number;
  readonly target: Uint8Array;
  readonly clear: boolean;
}

const settled = (work: Promise<unknown>): Promise<Error | undefined> =>
  work.then(
    () => undefined,
    (error: Error) => error,
  );

function asHotsetError(error: { readonly message: string }, filter: string): HotsetError {
  if (filter === "out-of-memory")
    return new HotsetError("memory", {
      where: "webgpu memory",
      expected: "memory on the device",
      received: error.message || "none left",
      hint: "Dispose tensors and steps that are not used, or plan smaller axes.",
    });
  return new HotsetError("internal", {
    where: "webgpu",
    expected: "the device to take the call",
    received: error.message,
    hint: "Unless a buffer that was bound belongs to another device, or was destroyed, this is a bug in Hotset: please report it.",
    cause: error,
  });
}
