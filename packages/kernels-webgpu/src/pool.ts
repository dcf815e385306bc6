/** Buffers that come and go with steps: kept by size and use, so that one-call forms make none. Contents are left over. */
import { roundUp } from "./flags.js";

/** Bytes that wait for their next use at most. */
const keptBytes = 128 << 20;

export class BufferPool {
  readonly #device: GPUDevice;
  readonly #free = new Map<string, GPUBuffer[]>();
  #kept = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** A buffer of at least so many bytes: the next power of two up to 1 MiB, then whole megabytes. */
  take(bytes: number, use: number): GPUBuffer {
    const size = bytes <= 1 << 20 ? 2 ** Math.ceil(Math.log2(Math.max(256, bytes))) : roundUp(bytes, 1 << 20);
    const buffer = this.#free.get(`${use} ${size}`)?.pop();
    if (!buffer) return this.#device.createBuffer({ size, usage: use });
    this.#kept -= size;
    return buffer;
  }

  /** Takes a buffer back; what is queued with it still runs before its next use. */
  give(buffer: GPUBuffer): void {
    const { size, usage } = buffer;
    if (this.#kept + size > keptBytes) {
      buffer.destroy();
      return;
    }
    const key = `${usage} ${size}`;
    const list = this.#free.get(key);
    if (list) list.push(buffer);
    else this.#free.set(key, [buffer]);
    this.#kept += size;
  }

  dispose(): void {
    for (const buffers of this.#free.values()) for (const buffer of buffers) buffer.destroy();
    this.#free.clear();
    this.#kept = 0;
  }
}
