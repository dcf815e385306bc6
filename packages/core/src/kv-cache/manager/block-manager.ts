import { HotsetError } from "../../errors.js";
import { audit } from "./audit.js";
import { blockHashes, hashWords } from "./hash.js";
import { HashTable } from "./hash-table.js";
import { type EvictionOrder, HazardOrder, RecencyOrder } from "./leaves.js";

export interface KvBlockManagerSettings {
  /** Blocks of the pool. */
  readonly blocks: number;
  /** Tokens of a block; default 16. */
  readonly blockSize?: number;
  /** The order in which cached blocks are given up; default `lru`. */
  readonly policy?: "lru" | "hazard";
  /** Hears what enters and leaves the cache, in order. */
  readonly onEvent?: (event: KvBlockEvent) => void;
}

export type KvBlockEvent =
  /** `hash` and `parent` (undefined for a first block) are 4 words each. */
  | { readonly kind: "stored"; readonly block: number; readonly hash: Uint32Array; readonly parent: Uint32Array | undefined }
  | { readonly kind: "removed"; readonly block: number; readonly hash: Uint32Array };

export interface KvRequest {
  readonly id: number;
  /** The request's blocks in order; the last one may be partly filled. Grows with `append`. */
  readonly blocks: readonly number[];
  /** Tokens whose keys and values were in the cache when the request began: at most all but the last token. */
  readonly cachedTokens: number;
  /** Tokens of the request now. */
  readonly tokens: number;
}

interface Held {
  readonly id: number;
  readonly blocks: number[];
  readonly cachedTokens: number;
  readonly all: number[];
  readonly extra: readonly string[];
  hashes: Uint32Array;
  /** Full blocks whose hash was stored, or found stored under another block. */
  stored: number;
  /** Blocks of others that hold what block i of this request holds, as [i, block]. */
  readonly equals: [number, number][];
  readonly tokens: number;
}

/**
 * A pool of KV-cache blocks with prefix reuse: chained hashes, reference counts, and eviction of children before
 * parents. A state machine without a clock; what it says to compute, store and drop is up to the caller.
 *
 * A block is free, in use by one or more requests, or cached: nobody uses it, and its hash finds it. Free blocks are
 * taken before cached ones are given up. Blocks with equal content that two requests computed side by side are not
 * merged: the first that is stored is found, the other stays its request's own and is freed with it. (That tables only
 * grow, and that a request's blocks are given back from the last to the first, is as in vLLM's block pool.)
 */
export class KvBlockManager {
  readonly blocks: number;
  readonly blockSize: number;
  /** Since the manager was made; `cachedTokens` counts tokens that did not have to be computed. */
  readonly counters = { requests: 0, tokens: 0, cachedTokens: 0, stored: 0, evicted: 0, duplicates: 0, touched: 0, refused: 0 };
  readonly #table: HashTable;
  readonly #order: EvictionOrder;
  readonly #references: Int32Array;
  readonly #parent: Int32Array;
  readonly #children: Int32Array;
  readonly #depth: Int32Array;
  /** 0 free, 1 in use without a hash, 2 found by its hash. */
  readonly #state: Uint8Array;
  /** Cached blocks that are not in the order, as they have children. */
  readonly #passed: Uint8Array;
  readonly #free: Int32Array;
  #freeCount: number;
  #cached = 0;
  #nextId = 1;
  readonly #held = new Map<number, Held>();
  readonly #onEvent: ((event: KvBlockEvent) => void) | undefined;

  constructor({ blocks, blockSize = 16, policy = "lru", onEvent }: KvBlockManagerSettings) {
    whole("blocks", blocks, 1, 2 ** 26);
    whole("blockSize", blockSize, 1, 2 ** 20);
    if (policy !== "lru" && policy !== "hazard") throw refusal("argument", "new", "a policy of lru, hazard", JSON.stringify(policy));
    this.blocks = blocks;
    this.blockSize = blockSize;
    this.#table = new HashTable(blocks);
    this.#order = policy === "lru" ? new RecencyOrder(blocks) : new HazardOrder(blocks);
    this.#references = new Int32Array(blocks);
    this.#parent = new Int32Array(blocks).fill(-1);
    this.#children = new Int32Array(blocks);
    this.#depth = new Int32Array(blocks);
    this.#state = new Uint8Array(blocks);
    this.#passed = new Uint8Array(blocks);
    this.#free = Int32Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
    this.#freeCount = blocks;
    this.#onEvent = onEvent;
  }

  /** Blocks that a new request could get: the free and the cached ones. */
  get available(): number {
    return this.#freeCount + this.#cached;
  }
  /** Blocks that nobody uses and that a hash finds. */
  get cached(): number {
    return this.#cached;
  }

  /** How many leading tokens are in the cache. Changes nothing: looking does not keep anything. */
  lookup(tokens: ArrayLike<number>, extra: readonly string[] = []): number {
    return this.#prefix(blockHashes(tokens, this.blockSize, extra), this.#mostCached(tokens.length)) * this.blockSize;
  }

  /**
   * Begins a request: takes the blocks of its longest cached prefix and new ones for the rest. At least the last token
   * is left to compute. `extra`: what else the content depends on (a tenant's salt, an adapter).
   * Throws HotsetError, with nothing changed, where the pool has too few blocks, now or at all.
   */
  acquire(tokens: ArrayLike<number>, extra: readonly string[] = []): KvRequest {
    const hashes = blockHashes(tokens, this.blockSize, extra);
    const found = this.#prefix(hashes, this.#mostCached(tokens.length));
    const total = Math.ceil(tokens.length / this.blockSize);
    let idle = 0;
    for (let i = 0; i < found; i++) if (this.#references[this.#table.find(hashes, i * hashWords)] === 0) idle++;
    this.#mustHave("acquire", total - found, this.available - idle, total);
    const blocks: number[] = [];
    for (let i = 0; i < found; i++) {
      const block = this.#table.find(hashes, i * hashWords);
      this.#retain(block);
      blocks.push(block);
    }
    for (let i = found; i < total; i++) blocks.push(this.#allocate(i));
    const cachedTokens = found * this.blockSize;
    const all = Array.from(tokens);
    const held: Held = {
      id: this.#nextId++,
      blocks,
      cachedTokens,
      all,
      extra: [...extra],
      hashes,
      stored: found,
      equals: [],
      get tokens() {
        return all.length;
      },
    };
    this.#held.set(held.id, held);
    this.counters.requests++;
    this.counters.tokens += tokens.length;
    this.counters.cachedTokens += cachedTokens;
    return held;
  }

  /** Adds decoded tokens to a request; returns the blocks that were added for them. Throws as `acquire` does. */
  append(id: number, tokens: ArrayLike<number>): number[] {
    const held = this.#of(id, "append");
    const total = Math.ceil((held.all.length + tokens.length) / this.blockSize);
    this.#mustHave("append", total - held.blocks.length, this.available, total);
    for (let i = 0; i < tokens.length; i++) held.all.push(tokens[i] as number);
    this.counters.tokens += tokens.length;
    const added: number[] = [];
    while (held.blocks.length < total) {
      added.push(this.#allocate(held.blocks.length));
      held.blocks.push(added.at(-1) as number);
    }
    if (Math.floor(held.all.length / this.blockSize) * hashWords > held.hashes.length)
      held.hashes = blockHashes(held.all, this.blockSize, held.extra, held.hashes);
    return added;
  }

  /** The keys and values of the first `tokens` tokens are computed: full blocks among them can be found from now on. */
  computed(id: number, tokens: number): void {
    const held = this.#of(id, "computed");
    if (!Number.isInteger(tokens) || tokens < 0 || tokens > held.all.length)
      throw refusal("argument", "computed", `at most the ${held.all.length} tokens of the request`, String(tokens));
    for (const full = Math.floor(tokens / this.blockSize); held.stored < full; held.stored++) {
      const [i, block] = [held.stored, held.blocks[held.stored] as number];
      const equal = this.#table.find(held.hashes, i * hashWords);
      if (equal >= 0) {
        // Held as well, so that the parents of blocks in use are in use.
        this.#retain(equal);
        held.equals.push([i, equal]);
        this.counters.duplicates++;
        continue;
      }
      const parent = i ? this.#table.find(held.hashes, (i - 1) * hashWords) : -1;
      this.#table.add(block, held.hashes, i * hashWords);
      this.#state[block] = 2;
      this.#parent[block] = parent;
      if (parent >= 0) this.#children[parent] = (this.#children[parent] as number) + 1;
      this.#order.stored(block, this.#table.hashes);
      this.counters.stored++;
      if (this.#onEvent)
        this.#onEvent({ kind: "stored", block, hash: this.#hashOf(block), parent: parent < 0 ? undefined : this.#hashOf(parent) });
    }
  }

  /** Ends a request. Its blocks stay cached, where their hash finds them, and are given up from the last to the first. */
  release(id: number, reply = 0): void {
    const held = this.#of(id, "release");
    if (!Number.isInteger(reply) || reply < 0) throw refusal("argument", "release", "a reply of 0, 1, 2, ...", String(reply));
    this.#held.delete(id);
    this.#order.begin();
    for (let i = held.blocks.length - 1; i >= 0; i--) {
      this.#drop(held.blocks[i] as number);
      if (held.equals.at(-1)?.[0] === i) this.#drop((held.equals.pop() as [number, number])[1]);
    }
    this.#order.end(Int32Array.from(held.blocks), reply);
  }

  /**
   * Marks the longest cached prefix of some blocks as used now, as a request that comes and goes would, without
   * allocating. `hashes [n, 4]` as `blockHashes` gives them. Returns how many blocks were found.
   */
  touch(hashes: Uint32Array): number {
    const count = Math.floor(hashes.length / hashWords);
    if (count > this.#path.length) this.#path = new Int32Array(2 * count);
    const path = this.#path;
    let found = 0;
    for (let at = 0; found < count; found++, at += hashWords) {
      const block = this.#table.find(hashes, at);
      if (block < 0) break;
      path[found] = block;
    }
    this.#order.begin();
    for (let i = found - 1; i >= 0; i--) {
      const block = path[i] as number;
      if (this.#references[block] !== 0) continue;
      if (this.#passed[block]) this.#passed[block] = 0;
      else this.#order.remove(block);
      this.#order.use(block, this.#depth[block] as number);
    }
    this.counters.touched += found;
    return found;
  }
  #path = new Int32Array(1024);

  /** Forgets every cached block that nobody uses; returns how many. */
  clear(): number {
    let count = 0;
    for (; this.#cached > 0; count++) this.#push(this.#evict());
    return count;
  }

  /** Checks every invariant (audit.ts), in time O(blocks). Throws HotsetError `internal` for the first that is broken. */
  audit(): void {
    audit({
      blocks: this.blocks,
      blockSize: this.blockSize,
      references: this.#references,
      parent: this.#parent,
      children: this.#children,
      state: this.#state,
      free: this.#free.subarray(0, this.#freeCount),
      cached: this.#cached,
      table: this.#table,
      requests: [...this.#held.values()].map(({ blocks, all, equals }) => ({
        blocks,
        tokens: all.length,
        equals: equals.map(([, block]) => block),
      })),
    });
  }

  #mostCached(tokens: number): number {
    return Math.floor(Math.max(0, tokens - 1) / this.blockSize);
  }

  #prefix(hashes: Uint32Array, most: number): number {
    let found = 0;
    while (found < most && this.#table.find(hashes, found * hashWords) >= 0) found++;
    return found;
  }

  #mustHave(where: string, needed: number, available: number, total: number): void {
    if (needed <= available && total <= this.blocks) return;
    this.counters.refused++;
    if (total > this.blocks)
      throw refusal("memory", where, `a request of at most ${this.blocks} blocks, which is the pool`, `one of ${total}`);
    throw refusal("memory", where, `${needed} free or cached blocks`, `${available}`, "Try again when a request has ended.");
  }

  #retain(block: number): void {
    if (this.#references[block] === 0) {
      this.#cached--;
      if (this.#passed[block]) this.#passed[block] = 0;
      else this.#order.remove(block);
    }
    this.#references[block] = (this.#references[block] as number) + 1;
  }

  #drop(block: number): void {
    const left = (this.#references[block] as number) - 1;
    this.#references[block] = left;
    if (left > 0) return;
    if (this.#state[block] !== 2) {
      this.#push(block);
      return;
    }
    this.#cached++;
    this.#order.use(block, this.#depth[block] as number);
  }

  #allocate(depth: number): number {
    const block = this.#freeCount ? (this.#free[--this.#freeCount] as number) : this.#evict();
    this.#references[block] = 1;
    this.#state[block] = 1;
    this.#depth[block] = depth;
    return block;
  }

  #push(block: number): void {
    this.#state[block] = 0;
    this.#free[this.#freeCount++] = block;
  }

  /** Gives up the first cached block in the order that has no children. There is one, as the parents of blocks in use are in use. */
  #evict(): number {
    let block = this.#order.least();
    while ((this.#children[block] as number) > 0) {
      this.#order.remove(block);
      this.#passed[block] = 1;
      block = this.#order.least();
    }
    this.#order.remove(block);
    const hash = this.#onEvent && this.#hashOf(block);
    this.#order.evicted(block, this.#table.hashes);
    this.#table.remove(block);
    this.#cached--;
    this.counters.evicted++;
    const parent = this.#parent[block] as number;
    this.#parent[block] = -1;
    if (parent >= 0) {
      const left = (this.#children[parent] as number) - 1;
      this.#children[parent] = left;
      if (left === 0 && this.#passed[parent]) {
        this.#passed[parent] = 0;
        this.#order.restore(parent);
      }
    }
    if (hash) this.#onEvent?.({ kind: "removed", block, hash });
    return block;
  }

  #hashOf(block: number): Uint32Array {
    return this.#table.hashes.slice(block * hashWords, (block + 1) * hashWords);
  }

  #of(id: number, where: string): Held {
    const held = this.#held.get(id);
    if (!held) throw refusal("argument", where, "the id of a request that has not ended", String(id));
    return held;
  }
}

function whole(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw refusal("argument", "new", `${name} from ${least} to ${most}`, String(value));
}

function refusal(code: "argument" | "memory", method: string, expected: string, received: string, hint?: string): HotsetError {
  return new HotsetError(code, { where: `KvBlockManager.${method}`, expected, received, ...(hint ? { hint } : {}) });
}
