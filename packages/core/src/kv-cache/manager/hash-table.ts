import { hashWords } from "./hash.js";

/**
 * Numbers by their 128-bit hash: open addressing with linear steps in one Int32Array at half load or less. Removing
 * closes the gap, so that no marks are left behind.
 */
export class HashTable {
  /** `[numbers, 4]` the hash of each number, valid while it is in the table. */
  readonly hashes: Uint32Array;
  readonly #slots: Int32Array;
  readonly #mask: number;
  #size = 0;

  /** Holds numbers below `numbers`. */
  constructor(numbers: number) {
    const slots = 2 ** Math.max(3, 32 - Math.clz32(2 * numbers - 1));
    this.hashes = new Uint32Array(numbers * hashWords);
    this.#slots = new Int32Array(slots).fill(-1);
    this.#mask = slots - 1;
  }

  get size(): number {
    return this.#size;
  }

  /** The number with the hash that lies at `from[at .. at + 4)`, or -1. */
  find(from: Uint32Array, at: number): number {
    const [slots, mask, hashes] = [this.#slots, this.#mask, this.hashes];
    const word = from[at] as number;
    for (let slot = word & mask; ; slot = (slot + 1) & mask) {
      const number = slots[slot] as number;
      if (number < 0) return -1;
      const own = number * hashWords;
      if (hashes[own] === word && hashes[own + 1] === from[at + 1] && hashes[own + 2] === from[at + 2] && hashes[own + 3] === from[at + 3])
        return number;
    }
  }

  /** The hash must not be in the table. */
  add(number: number, from: Uint32Array, at: number): void {
    for (let i = 0; i < hashWords; i++) this.hashes[number * hashWords + i] = from[at + i] as number;
    let slot = (from[at] as number) & this.#mask;
    while ((this.#slots[slot] as number) >= 0) slot = (slot + 1) & this.#mask;
    this.#slots[slot] = number;
    this.#size++;
  }

  /** The number must be in the table. */
  remove(number: number): void {
    const [slots, mask] = [this.#slots, this.#mask];
    let gap = (this.hashes[number * hashWords] as number) & mask;
    while (slots[gap] !== number) gap = (gap + 1) & mask;
    for (let slot = (gap + 1) & mask; (slots[slot] as number) >= 0; slot = (slot + 1) & mask) {
      const home = (this.hashes[(slots[slot] as number) * hashWords] as number) & mask;
      // It may move back only as far as its home.
      if (((slot - home) & mask) < ((slot - gap) & mask)) continue;
      slots[gap] = slots[slot] as number;
      gap = slot;
    }
    slots[gap] = -1;
    this.#size--;
  }
}
