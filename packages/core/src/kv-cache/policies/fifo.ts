import { Lists } from "./lists.js";
import type { EvictionPolicy, PolicySetting } from "./policy.js";

/** First in, first out: evicts the block that entered longest ago; use changes nothing. */
export class Fifo implements EvictionPolicy {
  readonly #lists: Lists;

  constructor({ unique }: PolicySetting) {
    this.#lists = new Lists(unique, 1);
  }
  touch(_block: number): void {}
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
