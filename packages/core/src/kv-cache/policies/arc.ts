import { Lists } from "./lists.js";
import type { EvictionPolicy, PolicySetting } from "./policy.js";

const [once, often, ghostOnce, ghostOften] = [0, 1, 2, 3];

/**
 * ARC (Megiddo and Modha, FAST 2003): T1 holds blocks used once, T2 those used again, B1 and B2 the numbers of what
 * left them; the real number p is how many T1 should hold, and moves with the ghosts that are missed.
 */
export class Arc implements EvictionPolicy {
  readonly #capacity: number;
  readonly #lists: Lists;
  #share = 0;
  /** Where the block that was just missed enters. */
  #enters = once;
  /** Whether the block that leaves becomes a ghost. */
  #remembers = true;

  constructor({ capacity, unique }: PolicySetting) {
    this.#capacity = capacity;
    this.#lists = new Lists(unique, 4);
  }

  touch(block: number): void {
    this.#lists.remove(block);
    this.#lists.push(often, block);
  }

  miss(block: number): void {
    const lists = this.#lists;
    const [b1, b2] = [lists.size(ghostOnce), lists.size(ghostOften)];
    const was = lists.of(block);
    this.#enters = was < 0 ? once : often;
    this.#remembers = true;
    this.#inOften = was === ghostOften;
    if (was === ghostOnce) this.#share = Math.min(this.#capacity, this.#share + Math.max(1, b2 / b1));
    else if (was === ghostOften) this.#share = Math.max(0, this.#share - Math.max(1, b1 / b2));
    else if (lists.size(once) + b1 === this.#capacity) {
      if (lists.size(once) < this.#capacity) lists.shift(ghostOnce);
      else this.#remembers = false;
    } else if (lists.size(once) + lists.size(often) + b1 + b2 === 2 * this.#capacity) lists.shift(ghostOften);
    // The paper replaces before it takes the block out of its ghost list; that list's size is not read there.
    if (was >= 0) lists.remove(block);
  }
  #inOften = false;

  victim(): number {
    const lists = this.#lists;
    const size = lists.size(once);
    if (!this.#remembers) return lists.oldest(once);
    const fromOnce = size > 0 && (size > this.#share || (this.#inOften && size === this.#share));
    return lists.oldest(fromOnce || lists.size(often) === 0 ? once : often);
  }

  remove(block: number): void {
    const from = this.#lists.of(block);
    this.#lists.remove(block);
    if (this.#remembers) this.#lists.push(from === once ? ghostOnce : ghostOften, block);
  }

  insert(block: number): void {
    this.#lists.push(this.#enters, block);
  }
}
