/** Memory of a CUDA device: our own, a part of it, or an application's. */
import { type DeviceMemory, HotsetError } from "@hotset/core/backend";
import { type CudaDevice, collected } from "./device.js";

/** What kernels read at once. */
export const alignment = 16;

const freeing = (device: CudaDevice, pointer: bigint) => () => device.addon.free(device.queue, pointer);

export class CudaMemory implements DeviceMemory {
  readonly device: CudaDevice;
  /** Its address on the device. */
  readonly pointer: bigint;
  readonly bytes: number;
  /** What the memory is a part of: kept alive by it. */
  readonly #whole: CudaMemory | undefined;
  #owned: boolean;

  /** `owned`: `release` gives it back. */
  constructor(device: CudaDevice, pointer: bigint, bytes: number, { owned = false, whole }: { owned?: boolean; whole?: CudaMemory } = {}) {
    this.device = device;
    this.pointer = pointer;
    this.bytes = bytes;
    this.#owned = owned;
    this.#whole = whole;
    if (owned) collected.register(this, freeing(device, pointer), this);
  }

  /** Zeroed. Throws HotsetError with code `memory`. */
  static alloc(device: CudaDevice, bytes: number): CudaMemory {
    const pointer = device.attempt("cuda: alloc", () => device.addon.alloc(device.queue, bytes));
    return new CudaMemory(device, pointer, bytes, { owned: true });
  }

  write(source: Uint8Array): void {
    this.#holds(source, "upload");
    this.device.attempt("cuda: upload", () => this.device.addon.write(this.device.queue, this.pointer, source));
  }

  async read(target: Uint8Array): Promise<void> {
    this.#holds(target, "download");
    await this.device.wait("cuda: download", undefined, BigUint64Array.of(this.pointer), [target]);
  }

  part(offset: number, bytes: number): CudaMemory {
    if (offset % alignment || offset < 0 || offset + bytes > this.bytes)
      throw new HotsetError("argument", {
        where: "cuda memory",
        expected: `a part from a multiple of ${alignment} within ${this.bytes} bytes`,
        received: `${bytes} bytes from ${offset}`,
      });
    return new CudaMemory(this.device, this.pointer + BigInt(offset), bytes, { whole: this.#whole ?? this });
  }

  sharesWith(other: DeviceMemory): boolean {
    if (!(other instanceof CudaMemory)) return false;
    return this.pointer < other.pointer + BigInt(other.bytes) && other.pointer < this.pointer + BigInt(this.bytes);
  }

  /** What was queued before still has it. */
  release(): void {
    if (!this.#owned) return;
    this.#owned = false;
    collected.unregister(this);
    if (this.device.lost === undefined) this.device.addon.free(this.device.queue, this.pointer);
  }

  #holds(view: Uint8Array, what: string): void {
    if (view.length > this.bytes)
      throw new HotsetError("argument", { where: `cuda: ${what}`, expected: `at most ${this.bytes} bytes`, received: `${view.length}` });
  }
}
