import { Heap } from "./heap.js";
import type { EvictionPolicy, PolicySetting } from "./policy.js";

/**
 * GreedyDual-Size-Frequency (Cherkasova 1998) with cost = size = 1: priority = L + uses since it entered, where L is
 * the priority of the last victim. Ties: the one whose priority was set earlier goes first.
 */
export class Gdsf implements EvictionPolicy {
  readonly #heap: Heap;
  readonly #uses: Uint32Array;
  #inflation = 0;
  #now = 0;

  constructor({ unique, capacity }: PolicySetting) {
    this.#heap = new Heap(unique, capacity);
    this.#uses = new Uint32Array(unique);
  }
  touch(block: number): void {
    const uses = (this.#uses[block] as number) + 1;
    this.#uses[block] = uses;
    this.#heap.set(block, this.#inflation + uses, this.#now++);
  }
  miss(): void {}
  victim(): number {
    return this.#heap.least();
  }
  remove(block: number): void {
    this.#inflation = this.#heap.first(block);
    this.#heap.remove(block);
  }
  insert(block: number): void {
    this.#uses[block] = 1;
    this.#heap.set(block, this.#inflation + 1, this.#now++);
  }
}
