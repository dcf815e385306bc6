import { Lists } from "../policies/lists.js";
import type { EvictionPolicy } from "../policies/policy.js";
import type { ContextOf, ReplaySemantics } from "./replay.js";
import type { KvTrace } from "./trace.js";

/**
 * The replay as a server does it. The parent of a block is the block before it in the request that stored it. Only a
 * block without resident children may leave, and none of the running request: where the policy names another one, a
 * leaf below that leaves instead, and where there is none, the leaf that was used longest ago. So a resident block's
 * parents are resident. The first `capacity` blocks of a request are used, from the last to the first.
 */
export class LeafSafe {
  readonly #trace: KvTrace;
  readonly #policy: EvictionPolicy;
  readonly #capacity: number;
  readonly #resident: Uint8Array;
  /** Request that uses each block now, plus one. */
  readonly #running: Int32Array;
  readonly #parent: Int32Array;
  /** Children of each block are a ring of siblings; -1 where there are none. */
  readonly #child: Int32Array;
  readonly #sibling: Int32Array;
  readonly #siblingBefore: Int32Array;
  readonly #recency: Lists;
  /** Where the blocks of the running request lie in the trace. */
  readonly #path: Int32Array;
  #size = 0;

  constructor(trace: KvTrace, policy: EvictionPolicy, capacity: number) {
    this.#trace = trace;
    this.#policy = policy;
    this.#capacity = capacity;
    this.#resident = new Uint8Array(trace.unique);
    this.#running = new Int32Array(trace.unique);
    this.#parent = new Int32Array(trace.unique).fill(-1);
    this.#child = new Int32Array(trace.unique).fill(-1);
    this.#sibling = new Int32Array(trace.unique).fill(-1);
    this.#siblingBefore = new Int32Array(trace.unique).fill(-1);
    this.#recency = new Lists(trace.unique, 1);
    this.#path = new Int32Array(Math.min(trace.unique, capacity));
  }

  run(semantics: ReplaySemantics, context: ContextOf): number {
    const { blocks, offsets } = this.#trace;
    let hits = 0;
    for (let r = 0; r < this.#trace.requests; r++) {
      const [from, to] = [offsets[r] as number, offsets[r + 1] as number];
      let length = 0;
      for (let i = from, counts = true; i < to; i++) {
        const block = blocks[i] as number;
        if (this.#resident[block]) hits += counts ? 1 : 0;
        else if (semantics !== "flat") counts = false;
        if (this.#running[block] === r + 1 || length === this.#capacity) continue;
        this.#running[block] = r + 1;
        this.#path[length++] = i;
      }
      const request = context(r);
      this.#policy.begin?.(request);
      // Where ids are not chained, a block may have been stored below another parent: it moves below this one.
      for (let k = 0; k < length; k++) {
        const block = this.#at(k);
        if (!this.#resident[block] || this.#parent[block] === this.#at(k - 1)) continue;
        this.#detach(block);
        this.#attach(block, this.#at(k - 1));
      }
      for (let k = length - 1; k >= 0; k--) this.#use(this.#at(k), this.#at(k - 1), this.#path[k] as number, r + 1);
      this.#policy.end?.(request);
    }
    return hits;
  }

  /** Block `k` of the running request, each counted once; -1 before the first. */
  #at(k: number): number {
    return k < 0 ? -1 : (this.#trace.blocks[this.#path[k] as number] as number);
  }

  #use(block: number, parent: number, position: number, running: number): void {
    if (this.#resident[block]) {
      this.#policy.touch(block, position);
      this.#recency.remove(block);
      this.#recency.push(0, block);
      return;
    }
    this.#policy.miss(block, position);
    if (this.#size === this.#capacity) {
      const named = this.#policy.victim(block, position);
      // What a child of this request was stored below must be stored as well.
      if (named < 0 && this.#child[block] === -1) return;
      this.#evict(this.#leafBelow(named < 0 ? this.#recency.oldest(0) : named, running));
    }
    this.#policy.insert(block, position);
    this.#resident[block] = 1;
    this.#recency.push(0, block);
    this.#attach(block, parent);
    this.#size++;
  }

  /** A leaf at or below `block` that may leave; else the one used longest ago. */
  #leafBelow(block: number, running: number): number {
    let at = block;
    for (let child = this.#free(at, running); child >= 0; child = this.#free(at, running)) at = child;
    if (this.#child[at] === -1 && this.#running[at] !== running) return at;
    at = this.#recency.oldest(0);
    while (this.#child[at] !== -1 || this.#running[at] === running) at = this.#recency.newer(at);
    return at;
  }

  /** The newest child that is resident and not of the running request; -1 where there is none. */
  #free(block: number, running: number): number {
    const first = this.#child[block] as number;
    if (first < 0) return -1;
    let child = first;
    do {
      if (this.#resident[child] && this.#running[child] !== running) return child;
      child = this.#sibling[child] as number;
    } while (child !== first);
    return -1;
  }

  #evict(block: number): void {
    this.#policy.remove(block);
    this.#recency.remove(block);
    this.#resident[block] = 0;
    this.#size--;
    this.#detach(block);
  }

  #detach(block: number): void {
    const parent = this.#parent[block] as number;
    this.#parent[block] = -1;
    if (parent < 0) return;
    const [before, after] = [this.#siblingBefore[block] as number, this.#sibling[block] as number];
    this.#sibling[before] = after;
    this.#siblingBefore[after] = before;
    if (this.#child[parent] === block) this.#child[parent] = after === block ? -1 : after;
  }

  #attach(block: number, parent: number): void {
    this.#parent[block] = parent;
    if (parent < 0) return;
    const first = this.#child[parent] as number;
    this.#child[parent] = block;
    if (first < 0) {
      this.#sibling[block] = block;
      this.#siblingBefore[block] = block;
      return;
    }
    const last = this.#siblingBefore[first] as number;
    this.#sibling[block] = first;
    this.#siblingBefore[block] = last;
    this.#sibling[last] = block;
    this.#siblingBefore[first] = block;
  }
}
