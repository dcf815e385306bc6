import { Lists } from "./lists.js";
import type { EvictionPolicy, PolicySetting } from "./policy.js";

const [small, main, ghost] = [0, 1, 2];

/**
 * S3-FIFO (Yang et al., SOSP 2023) with libCacheSim's defaults: a small queue of a tenth, a main queue, and a ghost
 * queue of floor(0.9 C) numbers. A block that is missed while it is a ghost enters main, any other enters small. One
 * step of eviction looks at the oldest of main (if main is over its share or small is empty) or of small; blocks used
 * again go round in main, and move from small to main after two uses. Steps repeat until one evicts.
 */
export class S3Fifo implements EvictionPolicy {
  readonly #queues: Lists;
  readonly #uses: Uint8Array;
  readonly #mainShare: number;
  readonly #ghosts: number;
  #wasGhost = false;

  constructor({ capacity, unique }: PolicySetting) {
    this.#queues = new Lists(unique, 3);
    this.#uses = new Uint8Array(unique);
    this.#mainShare = capacity - Math.max(1, Math.floor(capacity / 10));
    this.#ghosts = Math.floor((capacity * 9) / 10);
  }

  touch(block: number): void {
    // More than three uses count as three.
    if ((this.#uses[block] as number) < 3) this.#uses[block] = (this.#uses[block] as number) + 1;
  }

  miss(block: number): void {
    this.#wasGhost = this.#queues.of(block) === ghost;
    if (this.#wasGhost) this.#queues.remove(block);
  }

  victim(): number {
    const queues = this.#queues;
    for (;;) {
      const fromMain = queues.size(main) > this.#mainShare || queues.size(small) === 0;
      const block = queues.oldest(fromMain ? main : small);
      const uses = this.#uses[block] as number;
      if (uses < (fromMain ? 1 : 2)) return block;
      queues.remove(block);
      queues.push(main, block);
      this.#uses[block] = fromMain ? uses - 1 : 0;
    }
  }

  remove(block: number): void {
    const remember = this.#queues.of(block) === small && this.#ghosts > 0;
    this.#queues.remove(block);
    if (!remember) return;
    if (this.#queues.size(ghost) === this.#ghosts) this.#queues.shift(ghost);
    this.#queues.push(ghost, block);
  }

  insert(block: number): void {
    this.#uses[block] = 0;
    this.#queues.push(this.#wasGhost ? main : small, block);
    this.#wasGhost = false;
  }
}
