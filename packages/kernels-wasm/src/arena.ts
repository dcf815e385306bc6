/** Memory inside one WebAssembly.Memory: first fit, neighbours that are free are joined. */
import { HotsetError } from "@hotset/core/backend";

const pageBytes = 65536;
const align = 64;
/** Below lie the words of the pool (assembly/lib/pool.ts); no address is 0. */
const firstAddress = 4096;

interface Block {
  readonly start: number;
  bytes: number;
  /** How many want it to stay; 0 when it is free. */
  uses: number;
}

export class Arena {
  readonly memory: WebAssembly.Memory;
  /** Bytes it may grow to. */
  readonly limit: number;
  /** All of the memory, in order. */
  readonly #blocks: Block[];
  /** Views of a shared memory live on when it grows, on the buffer it had then. */
  readonly #buffers = new WeakSet<ArrayBufferLike>();
  /** What lies beyond was never used, and is zero. */
  #untouched = firstAddress;

  constructor(memory: WebAssembly.Memory, limit: number) {
    this.memory = memory;
    this.limit = limit;
    this.#blocks = [{ start: firstAddress, bytes: memory.buffer.byteLength - firstAddress, uses: 0 }];
    this.#buffers.add(memory.buffer);
  }

  /** Address of so many bytes, 64-byte aligned, zeroed if asked. Throws HotsetError with code `memory`. */
  alloc(bytes: number, zeroed: boolean): number {
    const size = Math.max(align, Math.ceil(bytes / align) * align);
    const block = this.#take(size) ?? (this.#grow(size) ? this.#take(size) : undefined);
    if (!block) throw this.#exhausted(bytes);
    const end = block.start + block.bytes;
    if (zeroed && block.start < this.#untouched)
      new Uint8Array(this.memory.buffer, block.start, Math.min(end, this.#untouched) - block.start).fill(0);
    this.#untouched = Math.max(this.#untouched, end);
    return block.start;
  }

  /** Gives back what `alloc` or `hold` returned, once for each. */
  free(start: number): void {
    const at = this.#find(start);
    const block = this.#blocks[at];
    if (!block || block.start !== start || block.uses === 0) throw new Error(`arena: ${start} is not in use`);
    if (--block.uses > 0) return;
    this.#join(at);
    this.#join(at - 1);
  }

  /** Keeps the block around an address until it is freed once more; undefined where nothing is in use. */
  hold(address: number): number | undefined {
    const block = this.#blocks[this.#find(address)];
    if (!block || block.uses === 0) return undefined;
    block.uses++;
    return block.start;
  }

  /** Whether an address lies in a block that was not given back. */
  inUse(address: number): boolean {
    return (this.#blocks[this.#find(address)] as Block).uses > 0;
  }

  owns(view: ArrayBufferView): boolean {
    return this.#buffers.has(view.buffer);
  }

  #take(size: number): Block | undefined {
    const blocks = this.#blocks;
    for (let i = 0; i < blocks.length; i++) {
      const block = blocks[i] as Block;
      if (block.uses > 0 || block.bytes < size) continue;
      if (block.bytes > size) blocks.splice(i + 1, 0, { start: block.start + size, bytes: block.bytes - size, uses: 0 });
      block.bytes = size;
      block.uses = 1;
      return block;
    }
    return undefined;
  }

  /** Joins a free block with the one behind it, if that is free. */
  #join(at: number): void {
    const block = this.#blocks[at];
    const next = this.#blocks[at + 1];
    if (!block || !next || block.uses > 0 || next.uses > 0) return;
    block.bytes += next.bytes;
    this.#blocks.splice(at + 1, 1);
  }

  /** Position of the last block that starts at or before an address. */
  #find(address: number): number {
    let low = 0;
    let high = this.#blocks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#blocks[middle] as Block).start <= address) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #grow(size: number): boolean {
    const now = this.memory.buffer.byteLength;
    const last = this.#blocks.at(-1) as Block;
    const missing = size - (last.uses > 0 ? 0 : last.bytes);
    if (now + missing > this.limit) return false;
    // A quarter more each time, so that many small tensors do not grow it many times.
    const wanted = Math.min(this.limit - now, Math.max(missing, Math.min(now / 4, 64 << 20)));
    return this.#growBy(wanted) || this.#growBy(missing);
  }

  #growBy(bytes: number): boolean {
    const before = this.memory.buffer.byteLength;
    try {
      this.memory.grow(Math.ceil(bytes / pageBytes));
    } catch {
      return false;
    }
    const { buffer } = this.memory;
    this.#buffers.add(buffer);
    this.#blocks.push({ start: before, bytes: buffer.byteLength - before, uses: 0 });
    this.#join(this.#blocks.length - 2);
    return true;
  }

  #exhausted(bytes: number): HotsetError {
    const free = this.#blocks.reduce((sum, block) => sum + (block.uses > 0 ? 0 : block.bytes), this.limit - this.memory.buffer.byteLength);
    return new HotsetError("memory", {
      where: "wasm memory",
      expected: `${bytes} bytes in one piece`,
      received: `${free} free of ${this.limit}`,
      hint: "Dispose tensors and steps that are not used, or load the backend with more memory: wasm({ memory: bytes }).",
    });
  }
}
