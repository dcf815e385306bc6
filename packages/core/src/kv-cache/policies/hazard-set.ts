import { HazardModel } from "./hazard-model.js";
import { Lists } from "./lists.js";
import type { RequestContext } from "./policy.js";

/** Classes: times used (1, 2, 3-4, 5-8, more) x how the last request's reply ended (unknown, then up to four ways). */
const useClasses = 5;
const replyClasses = 5;
const classes = useClasses * replyClasses;

/**
 * A set of blocks that evicts the one with the least hazard: one list for each class, in order of last use; within one
 * request the deepest block is older, so that what follows leaves before what it follows. Each eviction looks at the
 * oldest block of each class: O(classes).
 */
export class HazardSet {
  readonly #model = new HazardModel(classes, useClasses);
  readonly #lists: Lists;
  readonly #blocks: number;
  /** Of every block that is watched, whether it is in the set or not: last use (0 is never), class, uses. */
  readonly #lastUse: Float64Array;
  readonly #class: Uint8Array;
  readonly #uses: Uint8Array;
  /** Of each class, the block of the running request that was put last, and its position. */
  readonly #last = new Int32Array(classes).fill(-1);
  readonly #lastPosition = new Float64Array(classes);
  #now = 0;
  #due = firstRebuild;
  /** The time when the running request began. */
  #began = 0;

  /** Blocks are numbers below `blocks`. */
  constructor(blocks: number) {
    this.#blocks = blocks;
    this.#lists = new Lists(blocks, classes);
    this.#lastUse = new Float64Array(blocks);
    this.#class = new Uint8Array(blocks);
    this.#uses = new Uint8Array(blocks);
  }

  has(block: number): boolean {
    return this.#lists.of(block) >= 0;
  }

  begin(): void {
    this.#last.fill(-1);
    this.#began = this.#now;
    if (this.#now < this.#due) return;
    this.#due = this.#now + Math.max(firstRebuild, Math.floor(this.#now / 4));
    this.#model.rebuild((lasting) => {
      for (let block = 0; block < this.#blocks; block++) {
        const last = this.#lastUse[block] as number;
        if (last > 0) lasting(this.#class[block] as number, this.#now - last);
      }
    });
  }

  /** The reply has ended: the request's blocks move to the classes of its kind, in the order they have. */
  end({ blocks, from, to, reply }: RequestContext): void {
    if (reply === 0) return;
    const shift = useClasses * Math.min(reply, replyClasses - 1);
    for (let of = 0; of < useClasses; of++) {
      // What this request used lies at the newest end.
      let block = this.#lists.newest(of);
      if (block < 0 || !this.#isOfRequest(block)) continue;
      for (let older = this.#lists.older(block); older >= 0 && this.#isOfRequest(older); older = this.#lists.older(block)) block = older;
      while (block >= 0) {
        const newer = this.#lists.newer(block);
        this.#lists.remove(block);
        this.#lists.push(of + shift, block);
        block = newer;
      }
    }
    for (let i = from; i < to; i++) {
      const block = blocks[i] as number;
      if (this.#isOfRequest(block) && (this.#class[block] as number) < useClasses)
        this.#class[block] = (this.#class[block] as number) + shift;
    }
    this.#last.fill(-1);
  }

  #isOfRequest(block: number): boolean {
    return (this.#lastUse[block] as number) > this.#began;
  }

  /** The block is used, and is in the set from now on. */
  use(block: number, position: number): void {
    this.remove(block);
    const last = this.#lastUse[block] as number;
    const now = ++this.#now;
    if (last > 0) this.#model.used(this.#class[block] as number, now - last);
    this.#lastUse[block] = now;
    const uses = Math.min(255, (this.#uses[block] as number) + 1);
    this.#uses[block] = uses;
    const of = uses < 3 ? uses - 1 : uses < 5 ? 2 : uses < 9 ? 3 : 4;
    this.#class[block] = of;
    const before = this.#last[of] as number;
    const deeper = before >= 0 && position > (this.#lastPosition[of] as number);
    this.#lists.insertBefore(of, block, deeper ? before : -1);
    this.#last[of] = block;
    this.#lastPosition[of] = position;
  }

  /** Takes the block out of the set. It is watched further, so that a later use is learnt from. */
  remove(block: number): void {
    const of = this.#lists.of(block);
    if (of < 0) return;
    if (this.#last[of] === block) this.#last[of] = this.#lists.newer(block);
    this.#lists.remove(block);
  }

  /** Puts a block back that was removed, among those of its class by last use. */
  restore(block: number): void {
    const of = this.#class[block] as number;
    let newer = this.#lists.oldest(of);
    while (newer >= 0 && (this.#lastUse[newer] as number) < (this.#lastUse[block] as number)) newer = this.#lists.newer(newer);
    this.#lists.insertBefore(of, block, newer);
  }

  /** What is known of block `from` is from now on known of `to`, which nothing is known of. Neither is in the set then. */
  rename(from: number, to: number): void {
    this.remove(from);
    this.#lastUse[to] = this.#lastUse[from] as number;
    this.#class[to] = this.#class[from] as number;
    this.#uses[to] = this.#uses[from] as number;
    this.#lastUse[from] = 0;
    this.#uses[from] = 0;
  }

  /** The number will stand for another block. */
  forget(block: number): void {
    this.remove(block);
    const last = this.#lastUse[block] as number;
    if (last > 0) this.#model.unused(this.#class[block] as number, this.#now - last);
    this.#lastUse[block] = 0;
    this.#uses[block] = 0;
  }

  /** The block that is worth least; ties: the one used longest ago. -1 for an empty set. */
  least(): number {
    let [found, least, age] = [-1, Number.POSITIVE_INFINITY, 0];
    for (let of = 0; of < classes; of++) {
      const block = this.#lists.oldest(of);
      if (block < 0) continue;
      const old = this.#now - (this.#lastUse[block] as number);
      const score = this.#model.score(of, old);
      if (score < least || (score === least && old > age)) [found, least, age] = [block, score, old];
    }
    return found;
  }
}

/** References before the first scores are computed. */
const firstRebuild = 2048;
