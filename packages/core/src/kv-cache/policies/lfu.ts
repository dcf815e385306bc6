import { Heap } from "./heap.js";
import type { EvictionPolicy, PolicySetting } from "./policy.js";

/** Least frequently used: counts start at 1 when a block enters and are lost when it leaves; ties go by last use. */
export class Lfu implements EvictionPolicy {
  readonly #heap: Heap;
  #now = 0;

  constructor({ unique, capacity }: PolicySetting) {
    this.#heap = new Heap(unique, capacity);
  }
  touch(block: number): void {
    this.#heap.set(block, this.#heap.first(block) + 1, this.#now++);
  }
  miss(): void {}
  victim(): number {
    return this.#heap.least();
  }
  remove(block: number): void {
    this.#heap.remove(block);
  }
  insert(block: number): void {
    this.#heap.set(block, 1, this.#now++);
  }
}
