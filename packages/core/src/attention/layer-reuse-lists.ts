/** The lists of one anchor: which granules later layers attend to, how old they are, and what is counted about them. */

export interface ListSizes {
  readonly batch: number;
  /** Lists of a sequence: 1 or kvHeads. */
  readonly lists: number;
  readonly kvHeads: number;
  /** Entries of a list, at most. */
  readonly k: number;
  readonly granularity: number;
  /** A shorter sequence attends to everything, whatever is listed for it. */
  readonly minContext: number;
}

/** What a policy asks of an anchor's lists, wherever they lie. */
export interface Lists {
  readonly age: number;
  isFor(step: number): boolean;
  drop(): void;
  forget(sequence: number): void;
  grow(lengths: Int32Array, step: number): boolean;
  tokens(window: number, headMap?: readonly number[]): number;
}

/** The length of a sequence that nothing is known of: none is as long, so that its list cannot grow. */
export const unknown = 2 ** 31 - 1;

/**
 * Invariants: each list is ascending, without repeats, -1 behind its `counts` entries; its last granule holds the last
 * token of its sequence as of the last `take` or `grow`; `age` is the steps since `take`, or Infinity without a list.
 */
export class AnchorLists implements Lists {
  readonly sizes: ListSizes;
  /** [batch, lists, k] and [batch, lists]: what attention/select writes and attention/decode-sparse reads. */
  readonly selected: Int32Array;
  readonly counts: Uint32Array;
  /** [batch] tokens of each sequence when the lists were last brought up to date. */
  readonly #lengths: Int32Array;
  #age = Number.POSITIVE_INFINITY;
  /** The step that they are for. */
  #step = -1;

  constructor(sizes: ListSizes, selected: Int32Array, counts: Uint32Array) {
    this.sizes = sizes;
    this.selected = selected;
    this.counts = counts;
    this.#lengths = new Int32Array(sizes.batch);
  }

  get age(): number {
    return this.#age;
  }

  /** Whether they were made, or brought up to date, in this step. */
  isFor(step: number): boolean {
    return this.#step === step;
  }

  /** New lists were selected for sequences of these lengths. */
  take(lengths: Int32Array, step: number): void {
    this.#age = 0;
    this.#step = step;
    this.#lengths.set(lengths);
  }

  /** No lists any more. */
  drop(): void {
    this.#age = Number.POSITIVE_INFINITY;
  }

  /** The list of this sequence holds for nothing: lists are made anew before they are attended to. */
  forget(sequence: number): void {
    this.#lengths[sequence] = unknown;
  }

  /**
   * Appends the granules that have begun since, for sequences of these lengths. False, and nothing changed, where there
   * is no list, a sequence has become shorter, or an entry is missing.
   */
  grow(lengths: Int32Array, step: number): boolean {
    const { batch, lists, k, granularity } = this.sizes;
    if (this.#age === Number.POSITIVE_INFINITY) return false;
    for (let row = 0; row < batch * lists; row++) {
      const b = Math.floor(row / lists);
      const [before, now] = [this.#lengths[b] as number, lengths[b] as number];
      if (now < before) return false;
      if ((this.counts[row] as number) + Math.ceil(now / granularity) - Math.ceil(before / granularity) > k) return false;
    }
    for (let row = 0; row < batch * lists; row++) {
      const b = Math.floor(row / lists);
      const end = Math.ceil((lengths[b] as number) / granularity);
      for (let granule = Math.ceil((this.#lengths[b] as number) / granularity); granule < end; granule++) {
        const count = this.counts[row] as number;
        this.selected[row * k + count] = granule;
        this.counts[row] = count + 1;
      }
    }
    this.#lengths.set(lengths);
    this.#age++;
    this.#step = step;
    return true;
  }

  /** What is listed for a sequence, ascending; undefined where it attends to everything. */
  listed(sequence: number, list: number): Int32Array | undefined {
    const length = this.#lengths[sequence] as number;
    if (length === unknown || this.#isDense(length)) return undefined;
    const row = sequence * this.sizes.lists + list;
    return this.selected.slice(row * this.sizes.k, row * this.sizes.k + (this.counts[row] as number));
  }

  /** Tokens that the KV heads meet, each counted, with heads mapped to lists and no more than the last `window` tokens seen. */
  tokens(window: number, headMap?: readonly number[]): number {
    const { batch, kvHeads, k, granularity } = this.sizes;
    let tokens = 0;
    for (let b = 0; b < batch; b++) {
      const length = this.#lengths[b] as number;
      const first = window ? Math.max(0, length - window) : 0;
      if (this.#isDense(length)) {
        tokens += kvHeads * (length - first);
        continue;
      }
      for (let head = 0; head < kvHeads; head++) {
        const row = this.#row(b, head, headMap);
        for (let i = row * k; i < row * k + (this.counts[row] as number); i++) {
          const from = (this.selected[i] as number) * granularity;
          tokens += Math.max(0, Math.min(length, from + granularity) - Math.max(first, from));
        }
      }
    }
    return tokens;
  }

  /** The attention mass of what is listed, mean over sequences that attend to lists and KV heads; `masses` [batch, kvHeads, granules]. */
  massKept(masses: Float32Array): number {
    const { batch, kvHeads, k } = this.sizes;
    const granules = masses.length / (batch * kvHeads);
    let [kept, rows] = [0, 0];
    for (let b = 0; b < batch; b++) {
      const length = this.#lengths[b] as number;
      if (length === 0 || this.#isDense(length)) continue;
      for (let head = 0; head < kvHeads; head++) {
        const row = this.#row(b, head);
        rows++;
        for (let i = row * k; i < row * k + (this.counts[row] as number); i++)
          kept += masses[(b * kvHeads + head) * granules + (this.selected[i] as number)] as number;
      }
    }
    return rows === 0 ? 1 : kept / rows;
  }

  /** What sequences attend to, row by row, into [batch, lists, most]: lists of the heads that are mapped, or everything. */
  spread(target: Int32Array, headMap?: readonly number[]): void {
    const { batch, lists, k, granularity } = this.sizes;
    const most = target.length / (batch * lists);
    for (let b = 0; b < batch; b++) {
      const length = this.#lengths[b] as number;
      for (let list = 0; list < lists; list++) {
        const to = (b * lists + list) * most;
        let count = 0;
        if (this.#isDense(length)) for (; count < most && count * granularity < length; count++) target[to + count] = count;
        else {
          const row = b * lists + (headMap?.[list] ?? list);
          count = this.counts[row] as number;
          target.set(this.selected.subarray(row * k, row * k + count), to);
        }
        target.fill(-1, to + count, to + most);
      }
    }
  }

  #row(b: number, head: number, headMap?: readonly number[]): number {
    const { lists } = this.sizes;
    return b * lists + (lists === 1 ? 0 : (headMap?.[head] ?? head));
  }

  #isDense(length: number): boolean {
    return length < this.sizes.minContext;
  }
}
