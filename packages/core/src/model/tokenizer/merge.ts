/** Merging neighbours, the best pair again and again: what byte-pair tokenizers share. */

/** What a joint symbol from `left` to `end` scores, when its second part begins at `middle`; undefined: no such symbol. */
export type Score = (left: number, middle: number, end: number) => number | undefined;

interface Pair {
  readonly left: number;
  readonly right: number;
  readonly score: number;
  /** Where the joint symbol ends when it was found: the pair is stale when that has changed. */
  readonly end: number;
}

/**
 * Symbols begin at `starts`, the last ends at `length`. Merges the pair of the highest score, the leftmost of equal ones,
 * until none is left; calls `found` with the beginning and end of each symbol.
 */
export function mergeSymbols(starts: readonly number[], length: number, score: Score, found: (start: number, end: number) => void): void {
  // By where a symbol begins: where it ends (0 when it was merged), and where its neighbours begin; -1 at the ends.
  const end = new Int32Array(length + 1);
  const next = new Int32Array(length + 1).fill(-1);
  const previous = new Int32Array(length + 1).fill(-1);
  for (const [i, start] of starts.entries()) {
    end[start] = starts[i + 1] ?? length;
    next[start] = starts[i + 1] ?? -1;
    previous[start] = starts[i - 1] ?? -1;
  }
  const queue = new PairQueue();
  const find = (left: number): void => {
    const right = left < 0 ? -1 : (next[left] as number);
    if (right < 0) return;
    const value = score(left, right, end[right] as number);
    if (value !== undefined) queue.add({ left, right, score: value, end: end[right] as number });
  };
  for (const start of starts) find(start);
  for (let pair = queue.take(); pair; pair = queue.take()) {
    const { left, right } = pair;
    if (end[left] !== right || end[right] !== pair.end) continue;
    end[left] = pair.end;
    end[right] = 0;
    const after = next[right] as number;
    next[left] = after;
    if (after >= 0) previous[after] = left;
    find(previous[left] as number);
    find(left);
  }
  for (let at = starts[0] ?? -1; at >= 0; at = next[at] as number) found(at, end[at] as number);
}

/** Pairs, the highest score first, then the leftmost: a binary heap. */
class PairQueue {
  readonly #heap: Pair[] = [];

  add(pair: Pair): void {
    const heap = this.#heap;
    let at = heap.push(pair) - 1;
    for (let up = (at - 1) >> 1; at > 0 && before(pair, heap[up] as Pair); up = (at - 1) >> 1) {
      heap[at] = heap[up] as Pair;
      at = up;
    }
    heap[at] = pair;
  }

  take(): Pair | undefined {
    const heap = this.#heap;
    const [best] = heap;
    const last = heap.pop();
    if (heap.length === 0 || last === undefined) return best;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && before(heap[child + 1] as Pair, heap[child] as Pair)) child++;
      if (!before(heap[child] as Pair, last)) break;
      heap[at] = heap[child] as Pair;
      at = child;
    }
    heap[at] = last;
    return best;
  }
}

const before = (a: Pair, b: Pair): boolean => a.score > b.score || (a.score === b.score && a.left < b.left);
