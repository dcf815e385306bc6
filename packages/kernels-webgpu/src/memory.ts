/** Memory of a WebGPU device: a GPUBuffer or a part of one, our own or the application's. */
import { type DeviceMemory, HotsetError } from "@hotset/core/backend";
import type { Check, WebgpuDevice } from "./device.js";
import { bindingAlign, roundUp } from "./flags.js";

interface Origin {
  /** Ours to destroy? */
  readonly own: boolean;
  readonly check: Check;
}

export class WebgpuMemory implements DeviceMemory {
  readonly device: WebgpuDevice;
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly bytes: number;
  /** What WebGPU says of the buffer, later. */
  readonly check: Check;
  readonly #own: boolean;
  #released = false;

  constructor(device: WebgpuDevice, buffer: GPUBuffer, offset: number, bytes: number, { own, check }: Origin) {
    this.device = device;
    this.buffer = buffer;
    this.offset = offset;
    this.bytes = bytes;
    this.check = check;
    this.#own = own;
  }

  write(source: Uint8Array): void {
    this.device.live("webgpu: upload");
    this.device.flush();
    const { queue } = this.device.device;
    // WebGPU takes no shared memory, and whole words only.
    const shared = typeof SharedArrayBuffer !== "undefined" && source.buffer instanceof SharedArrayBuffer;
    const bytes = (shared ? source.slice() : source) as Uint8Array<ArrayBuffer>;
    const whole = bytes.length - (bytes.length % 4);
    if (whole) queue.writeBuffer(this.buffer, this.offset, bytes.buffer, bytes.byteOffset, whole);
    if (whole === bytes.length) return;
    const rest = new Uint8Array(4);
    rest.set(bytes.subarray(whole));
    queue.writeBuffer(this.buffer, this.offset + whole, rest);
  }

  read(target: Uint8Array): Promise<void> {
    return this.device.wait([this.check], [{ memory: this, target }]);
  }

  part(offset: number, bytes: number): WebgpuMemory {
    if (offset % bindingAlign || offset + bytes > this.bytes)
      throw new HotsetError("argument", {
        where: "webgpu memory",
        expected: `a part from a multiple of ${bindingAlign} within ${this.bytes} bytes`,
        received: `${bytes} bytes from ${offset}`,
      });
    return new WebgpuMemory(this.device, this.buffer, this.offset + offset, bytes, { own: false, check: this.check });
  }

  /** A buffer that one binding writes may have no other use in the same dispatch. */
  sharesWith(other: DeviceMemory): boolean {
    return (other as WebgpuMemory).buffer === this.buffer;
  }

  /** For a binding: whole words. */
  range(offset = 0, bytes = this.bytes): GPUBufferBinding {
    return { buffer: this.buffer, offset: this.offset + offset, size: Math.max(4, roundUp(bytes, 4)) };
  }

  /** What was queued keeps the buffer until it is done. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    if (!this.#own) return;
    this.device.flush();
    this.buffer.destroy();
  }
}
