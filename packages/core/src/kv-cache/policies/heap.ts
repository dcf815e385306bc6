/**
 * A binary min-heap over the numbers `0 .. nodes - 1`, ordered by a pair of keys, in flat arrays. Changing or removing
 * any number is O(log n) and allocates nothing.
 */
export class Heap {
  readonly #at: Int32Array;
  readonly #nodes: Int32Array;
  readonly #first: Float64Array;
  readonly #second: Float64Array;
  #size = 0;

  /** `capacity`: how many numbers it can hold at once. */
  constructor(nodes: number, capacity: number) {
    this.#at = new Int32Array(nodes).fill(-1);
    this.#nodes = new Int32Array(Math.min(nodes, capacity));
    this.#first = new Float64Array(nodes);
    this.#second = new Float64Array(nodes);
  }

  /** The number with the least keys. Undefined for an empty heap. */
  least(): number {
    return this.#nodes[0] as number;
  }
  first(node: number): number {
    return this.#first[node] as number;
  }
  second(node: number): number {
    return this.#second[node] as number;
  }

  /** Adds a number, or gives it new keys. */
  set(node: number, first: number, second: number): void {
    this.#first[node] = first;
    this.#second[node] = second;
    let at = this.#at[node] as number;
    if (at < 0) at = this.#size++;
    this.#place(node, at);
    this.#down(node, this.#up(node, at));
  }

  remove(node: number): void {
    const at = this.#at[node] as number;
    const last = this.#nodes[--this.#size] as number;
    this.#at[node] = -1;
    if (last === node) return;
    this.#place(last, at);
    this.#down(last, this.#up(last, at));
  }

  #place(node: number, at: number): void {
    this.#nodes[at] = node;
    this.#at[node] = at;
  }

  #less(a: number, b: number): boolean {
    const [x, y] = [this.#first[a] as number, this.#first[b] as number];
    return x < y || (x === y && (this.#second[a] as number) < (this.#second[b] as number));
  }

  #up(node: number, start: number): number {
    let at = start;
    while (at > 0) {
      const parent = this.#nodes[(at - 1) >> 1] as number;
      if (!this.#less(node, parent)) break;
      this.#place(parent, at);
      at = (at - 1) >> 1;
    }
    this.#place(node, at);
    return at;
  }

  #down(node: number, start: number): void {
    let at = start;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#size) break;
      if (child + 1 < this.#size && this.#less(this.#nodes[child + 1] as number, this.#nodes[child] as number)) child++;
      const below = this.#nodes[child] as number;
      if (!this.#less(below, node)) break;
      this.#place(below, at);
      at = child;
    }
    this.#place(node, at);
  }
}
