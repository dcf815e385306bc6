/** What LayerReuse counts of its runs. */
import type { Lists } from "./layer-reuse-lists.js";
import type { ReuseCounters } from "./layer-reuse-step.js";

export class ReuseCounts {
  readonly #kvHeads: number;
  readonly #counts = { steps: 0, denseRuns: 0, anchorRuns: 0, sparseRuns: 0, tokensAttended: 0, tokensVisible: 0 };
  #mass = 0;
  #active = false;

  constructor(kvHeads: number) {
    this.#kvHeads = kvHeads;
  }

  get steps(): number {
    return this.#counts.steps;
  }

  get counters(): ReuseCounters {
    const { anchorRuns } = this.#counts;
    return { ...this.#counts, massKept: anchorRuns ? this.#mass / anchorRuns : Number.NaN, sparseActive: this.#active };
  }

  /** Another step begins. */
  step(): void {
    this.#counts.steps++;
    this.#active = false;
  }

  /** A layer attended to everything. */
  dense(lengths: Int32Array, window: number): void {
    this.#counts.denseRuns++;
    this.#counts.tokensAttended += this.#see(lengths, window);
  }

  /** A layer attended to lists. */
  sparse(lists: Lists, lengths: Int32Array, window: number, headMap?: readonly number[]): void {
    this.#counts.sparseRuns++;
    this.#active = true;
    this.#counts.tokensAttended += lists.tokens(window, headMap);
    this.#see(lengths, window);
  }

  /** An anchor made lists, and attended to them after that or did not. */
  listed(attends: boolean, massKept: number, lengths: Int32Array, window: number): void {
    this.#counts.anchorRuns++;
    if (attends) this.#active = true;
    this.#mass += massKept;
    this.#counts.tokensAttended += this.#see(lengths, window);
  }

  /** Counts what dense attention meets in one layer, and returns it. */
  #see(lengths: Int32Array, window: number): number {
    let tokens = 0;
    for (const length of lengths) tokens += this.#kvHeads * (window ? Math.min(window, length) : length);
    this.#counts.tokensVisible += tokens;
    return tokens;
  }
}
