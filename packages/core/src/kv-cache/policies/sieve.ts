import { Lists } from "./lists.js";
import type { EvictionPolicy, PolicySetting } from "./policy.js";

/**
 * SIEVE (Zhang et al., NSDI 2024): a queue in order of entry and a visited bit. A hand walks from the oldest to the
 * newest, clears bits, stops at the first block without one, and stays there for the next eviction.
 */
export class Sieve implements EvictionPolicy {
  readonly #queue: Lists;
  readonly #visited: Uint8Array;
  /** The block to look at first; -1 is the oldest. */
  #hand = -1;

  constructor({ unique }: PolicySetting) {
    this.#queue = new Lists(unique, 1);
    this.#visited = new Uint8Array(unique);
  }
  touch(block: number): void {
    this.#visited[block] = 1;
  }
  miss(): void {}
  victim(): number {
    let block = this.#hand < 0 ? this.#queue.oldest(0) : this.#hand;
    while (this.#visited[block]) {
      this.#visited[block] = 0;
      block = this.#queue.newer(block);
      if (block < 0) block = this.#queue.oldest(0);
    }
    this.#hand = block;
    return block;
  }
  remove(block: number): void {
    if (this.#hand === block) this.#hand = this.#queue.newer(block);
    this.#queue.remove(block);
  }
  insert(block: number): void {
    this.#visited[block] = 0;
    this.#queue.push(0, block);
  }
}
