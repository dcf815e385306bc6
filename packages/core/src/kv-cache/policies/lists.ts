/**
 * Doubly linked lists over the numbers `0 .. nodes - 1`, oldest first, in flat arrays. A number is in one list at a
 * time, or in none. Every operation is O(1) and allocates nothing.
 */
export class Lists {
  readonly #older: Int32Array;
  readonly #newer: Int32Array;
  readonly #list: Int32Array;
  readonly #oldest: Int32Array;
  readonly #newest: Int32Array;
  readonly #size: Int32Array;

  constructor(nodes: number, lists: number) {
    this.#older = new Int32Array(nodes).fill(-1);
    this.#newer = new Int32Array(nodes).fill(-1);
    this.#list = new Int32Array(nodes).fill(-1);
    this.#oldest = new Int32Array(lists).fill(-1);
    this.#newest = new Int32Array(lists).fill(-1);
    this.#size = new Int32Array(lists);
  }

  /** The list a number is in, or -1. */
  of(node: number): number {
    return this.#list[node] as number;
  }
  size(list: number): number {
    return this.#size[list] as number;
  }
  /** -1 for an empty list. */
  oldest(list: number): number {
    return this.#oldest[list] as number;
  }
  newest(list: number): number {
    return this.#newest[list] as number;
  }
  /** The next older one, or -1. */
  older(node: number): number {
    return this.#older[node] as number;
  }
  /** The next newer one, or -1. */
  newer(node: number): number {
    return this.#newer[node] as number;
  }

  /** Puts a number that is in no list at the newest end. */
  push(list: number, node: number): void {
    this.insertBefore(list, node, -1);
  }

  /** Puts a number that is in no list on the older side of `other`, which is in `list`; -1 is the newest end. */
  insertBefore(list: number, node: number, other: number): void {
    const before = other < 0 ? (this.#newest[list] as number) : (this.#older[other] as number);
    this.#older[node] = before;
    this.#newer[node] = other;
    if (before < 0) this.#oldest[list] = node;
    else this.#newer[before] = node;
    if (other < 0) this.#newest[list] = node;
    else this.#older[other] = node;
    this.#list[node] = list;
    this.#size[list] = (this.#size[list] as number) + 1;
  }

  remove(node: number): void {
    const list = this.#list[node] as number;
    const [before, after] = [this.#older[node] as number, this.#newer[node] as number];
    if (before < 0) this.#oldest[list] = after;
    else this.#newer[before] = after;
    if (after < 0) this.#newest[list] = before;
    else this.#older[after] = before;
    this.#list[node] = -1;
    this.#size[list] = (this.#size[list] as number) - 1;
  }

  /** Takes the oldest one out, and returns it; -1 for an empty list. */
  shift(list: number): number {
    const node = this.#oldest[list] as number;
    if (node >= 0) this.remove(node);
    return node;
  }
}
