import { HazardSet } from "../policies/hazard-set.js";
import { Lists } from "../policies/lists.js";
import { hashWords } from "./hash.js";
import { HashTable } from "./hash-table.js";

/** The order in which cached blocks that nobody uses are given up. */
export interface EvictionOrder {
  /** A request begins to give blocks back; `use` follows for each, the deepest first. */
  begin(): void;
  /** Nobody uses the block any more. */
  use(block: number, depth: number): void;
  /** All blocks of the request were given back, and how its reply ended is known: a number from 1, 0 is unknown. */
  end(blocks: Int32Array, reply: number): void;
  /** The block is used again, or is looked past because it has children. */
  remove(block: number): void;
  /** Puts a block back that was looked past. */
  restore(block: number): void;
  /** The block to give up next; -1 for none. */
  least(): number;
  /** The block leaves the cache. */
  evicted(block: number, hashes: Uint32Array): void;
  /** The block holds what this hash stands for. */
  stored(block: number, hashes: Uint32Array): void;
}

/** Longest unused first. */
export class RecencyOrder implements EvictionOrder {
  readonly #lists: Lists;
  readonly #time: Float64Array;
  #now = 0;

  constructor(blocks: number) {
    this.#lists = new Lists(blocks, 1);
    this.#time = new Float64Array(blocks);
  }
  begin(): void {}
  use(block: number): void {
    this.#time[block] = ++this.#now;
    this.#lists.push(0, block);
  }
  end(): void {}
  remove(block: number): void {
    if (this.#lists.of(block) >= 0) this.#lists.remove(block);
  }
  restore(block: number): void {
    let newer = this.#lists.oldest(0);
    while (newer >= 0 && (this.#time[newer] as number) < (this.#time[block] as number)) newer = this.#lists.newer(newer);
    this.#lists.insertBefore(0, block, newer);
  }
  least(): number {
    return this.#lists.oldest(0);
  }
  evicted(): void {}
  stored(): void {}
}

/** Least hazard first (HazardSet). As many evicted blocks as the pool has are watched further, to learn when they come back. */
export class HazardOrder implements EvictionOrder {
  readonly #set: HazardSet;
  readonly #blocks: number;
  readonly #ghosts: HashTable;
  /** The ghost that is given up next: ghosts are a ring. */
  #next = 0;
  readonly #used: Uint8Array;

  constructor(blocks: number) {
    this.#blocks = blocks;
    this.#set = new HazardSet(2 * blocks);
    this.#ghosts = new HashTable(blocks);
    this.#used = new Uint8Array(blocks);
  }
  begin(): void {
    this.#set.begin();
  }
  use(block: number, depth: number): void {
    this.#set.use(block, depth);
  }
  end(blocks: Int32Array, reply: number): void {
    this.#set.end({ request: 0, blocks, from: 0, to: blocks.length, reply });
  }
  remove(block: number): void {
    this.#set.remove(block);
  }
  restore(block: number): void {
    this.#set.restore(block);
  }
  least(): number {
    return this.#set.least();
  }
  evicted(block: number, hashes: Uint32Array): void {
    const ghost = this.#next;
    this.#next = (ghost + 1) % this.#blocks;
    if (this.#used[ghost]) {
      this.#ghosts.remove(ghost);
      this.#set.forget(this.#blocks + ghost);
    }
    this.#used[ghost] = 1;
    this.#ghosts.add(ghost, hashes, block * hashWords);
    this.#set.rename(block, this.#blocks + ghost);
  }
  stored(block: number, hashes: Uint32Array): void {
    this.#set.forget(block);
    const ghost = this.#ghosts.find(hashes, block * hashWords);
    if (ghost < 0) return;
    this.#ghosts.remove(ghost);
    this.#used[ghost] = 0;
    this.#set.rename(this.#blocks + ghost, block);
  }
}
