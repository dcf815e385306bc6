import { Lists } from "./lists.js";
import type { EvictionPolicy, PolicySetting } from "./policy.js";

/** Least recently used: evicts the block whose last use is longest ago. */
export class Lru implements EvictionPolicy {
  readonly #lists: Lists;

  constructor({ unique }: PolicySetting) {
    this.#lists = new Lists(unique, 1);
  }
  touch(block: number): void {
    this.#lists.remove(block);
    this.#lists.push(0, block);
  }
  miss(): void {}
  victim(): number {
    return this.#lists.oldest(0);
  }
  remove(block: number): void {
    this.#lists.remove(block);
  }
  insert(block: number): void {
    this.#lists.push(0, block);
  }
}
