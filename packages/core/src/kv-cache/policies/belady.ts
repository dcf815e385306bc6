import { Heap } from "./heap.js";
import type { EvictionPolicy, PolicySetting } from "./policy.js";

export interface OracleSetting extends PolicySetting {
  /** For each reference, when its block is used next: larger is later, Infinity is never. */
  readonly next: Float64Array;
  /** For each reference, its position in its request. */
  readonly depth: (position: number) => number;
}

/**
 * Belady's MIN (1966): evicts the block whose next use is farthest. Ties, and blocks that are never used again: the
 * deepest in its request goes first, then the larger number. With `bypass`, a block that is missed may itself be the
 * one that is not kept. No other policy on the same references has fewer misses.
 */
export class Belady implements EvictionPolicy {
  readonly #setting: OracleSetting;
  readonly #bypass: boolean;
  readonly #heap: Heap;

  constructor(setting: OracleSetting, bypass: boolean) {
    this.#setting = setting;
    this.#bypass = bypass;
    this.#heap = new Heap(setting.unique, setting.capacity);
  }

  #next(position: number): number {
    return -(this.#setting.next[position] as number);
  }
  /** Exact below 2^21 blocks in a request and 2^31 different ones. */
  #order(block: number, position: number): number {
    return -(this.#setting.depth(position) * 2 ** 31 + block);
  }

  touch(block: number, position: number): void {
    this.#heap.set(block, this.#next(position), this.#order(block, position));
  }
  miss(): void {}
  victim(incoming: number, position: number): number {
    const heap = this.#heap;
    const least = heap.least();
    if (!this.#bypass) return least;
    const next = this.#next(position);
    const first = heap.first(least);
    const stays = first < next || (first === next && heap.second(least) < this.#order(incoming, position));
    return stays ? least : -1;
  }
  remove(block: number): void {
    this.#heap.remove(block);
  }
  insert(block: number, position: number): void {
    this.#heap.set(block, this.#next(position), this.#order(block, position));
  }
}
