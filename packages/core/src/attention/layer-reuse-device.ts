/** Lists that stay on a device, where `attention/select` writes them and later layers read them: nothing comes back. */
import type { embedding } from "../model/embedding/spec.js";
import type { Plan } from "../plan.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import { type ListSizes, type Lists, unknown } from "./layer-reuse-lists.js";
import { forced, type SelectAxes } from "./select/reference.js";
import type { select } from "./select/spec.js";

/** The scalars of `attention/select`. */
interface Selecting {
  readonly budget: number;
  readonly sink: number;
  readonly recent: number;
}

/**
 * How many granules each list holds follows from the lengths, as all lists have the same budget. Granules that have begun
 * since a list was made are listed by selecting once more from the masses of then, with so many more entries and with so
 * many more last tokens that are always listed: that is the list of then, and they behind it.
 */
export class DeviceLists implements Lists {
  readonly #axes: SelectAxes;
  readonly #kvHeads: number;
  /** As they were made, and tokens of each sequence then and now. */
  #made: Selecting = { budget: 1, sink: 0, recent: 1 };
  readonly #then: Int32Array;
  readonly #now: Int32Array;
  #age = Number.POSITIVE_INFINITY;
  #step = -1;

  constructor({ batch, lists, kvHeads, k, granularity }: ListSizes, granules: number) {
    this.#axes = { batch, heads: kvHeads, granules, granularity, lists, k };
    this.#kvHeads = kvHeads;
    this.#then = new Int32Array(batch);
    this.#now = new Int32Array(batch);
  }

  get age(): number {
    return this.#age;
  }

  isFor(step: number): boolean {
    return this.#step === step;
  }

  /** New lists are selected with these scalars. */
  take(lengths: Int32Array, step: number, made: Selecting): void {
    this.#age = 0;
    this.#step = step;
    this.#made = made;
    this.#then.set(lengths);
    this.#now.set(lengths);
  }

  drop(): void {
    this.#age = Number.POSITIVE_INFINITY;
  }

  forget(sequence: number): void {
    this.#now[sequence] = unknown;
  }

  /** As AnchorLists; also false where sequences have grown by different numbers of tokens or granules. */
  grow(lengths: Int32Array, step: number): boolean {
    if (this.#age === Number.POSITIVE_INFINITY) return false;
    const [tokens, granules] = [(lengths[0] ?? 0) - (this.#then[0] ?? 0), this.#begun(lengths, 0)];
    for (const [b, now] of lengths.entries()) {
      const then = this.#then[b] as number;
      if (now < (this.#now[b] as number) || now - then !== tokens || this.#begun(lengths, b) !== granules) return false;
      if (forced(this.#axes, { ...this.#made }, then).total + granules > this.#axes.k) return false;
    }
    this.#now.set(lengths);
    this.#age++;
    this.#step = step;
    return true;
  }

  /** What selects the lists as they are now from the masses as they were then. */
  get selecting(): Selecting {
    const { budget, sink, recent } = this.#made;
    const tokens = (this.#now[0] ?? 0) - (this.#then[0] ?? 0);
    if (tokens === 0) return this.#made;
    return {
      budget: Math.min(budget, this.#axes.k) + this.#begun(this.#now, 0),
      sink,
      recent: tokens + recent,
    };
  }

  /** NaN under a window: it depends on what the lists hold. */
  tokens(window: number): number {
    if (window) return Number.NaN;
    const { granularity } = this.#axes;
    let tokens = 0;
    for (const [b, now] of this.#now.entries()) {
      if (now === 0) continue;
      const { total } = forced(this.#axes, { ...this.#made }, this.#then[b] as number);
      // The last granule is always listed, and not always full.
      tokens += (total + this.#begun(this.#now, b) - Math.ceil(now / granularity)) * granularity + now;
    }
    return this.#kvHeads * tokens;
  }

  /** Granules that sequence b has begun since the lists were made. */
  #begun(lengths: Int32Array, b: number): number {
    const { granularity } = this.#axes;
    return Math.ceil((lengths[b] as number) / granularity) - Math.ceil((this.#then[b] as number) / granularity);
  }
}

/** An anchor's masses, and its lists or those of the heads of another layer. */
export class DeviceAnchor {
  readonly lists: DeviceLists;
  readonly masses: Tensor<"f32">;
  readonly selected: Tensor<"i32">;
  readonly counts: Tensor<"u32">;
  readonly #select: Plan<typeof select>;

  constructor(plan: Plan<typeof select>, lists: DeviceLists) {
    this.#select = plan;
    this.lists = lists;
    const held: { dispose(): void }[] = [];
    const keep = <T extends { dispose(): void }>(tensor: T): T => {
      held.push(tensor);
      return tensor;
    };
    try {
      this.masses = keep(plan.alloc("scores"));
      this.selected = keep(plan.alloc("selected"));
      this.counts = keep(plan.alloc("counts"));
    } catch (error) {
      for (const tensor of held) tensor.dispose();
      throw error;
    }
  }

  /** Selects the lists, as they are at each run. */
  selecting(lengths: Tensor<"i32">): { run(): void; dispose(): void } {
    return this.#selecting(this.masses, lengths, this.selected, this.counts);
  }

  /** The same for the heads of another layer, whose head h takes the list of head `headMap[h]`: from the masses, reordered. */
  mapped(plan: Plan<typeof embedding>, lengths: Tensor<"i32">, headMap: readonly number[], own: { dispose(): void }[]): Mapped {
    const keep = <T extends { dispose(): void }>(value: T): T => {
      own.push(value);
      return value;
    };
    const { heads, batch } = this.#select.axes;
    const ids = keep(plan.alloc("ids"));
    ids.upload(Int32Array.from({ length: batch * heads }, (_, i) => Math.floor(i / heads) * heads + (headMap[i % heads] as number)));
    const [scores, selected, counts] = [
      keep(this.#select.alloc("scores")),
      keep(this.#select.alloc("selected")),
      keep(this.#select.alloc("counts")),
    ];
    const reorder = keep(
      plan.bind(
        { ids, table: this.masses.view([plan.axes.vocab, plan.axes.dim]) },
        { out: scores.view([plan.axes.tokens, plan.axes.dim]) },
      ),
    );
    const select = keep(this.#selecting(scores, lengths, selected, counts));
    return {
      selected,
      run() {
        reorder.run();
        select.run();
      },
    };
  }

  dispose(): void {
    for (const tensor of [this.masses, this.selected, this.counts]) tensor.dispose();
  }

  #selecting(scores: Tensor<"f32">, lengths: Tensor<"i32">, selected: Tensor<"i32">, counts: Tensor<"u32">) {
    const step: Step<typeof select> = this.#select.bind({ scores, lengths }, { selected, counts });
    const { lists } = this;
    return {
      run() {
        const { budget, sink, recent } = lists.selecting;
        step.set("budget", budget).set("sink", sink).set("recent", recent).run();
      },
      dispose: () => step.dispose(),
    };
  }
}

export interface Mapped {
  readonly selected: Tensor<"i32">;
  run(): void;
}

/** The sizes of `model/embedding` that reorders masses [batch * heads, granules] by head. */
export const reorderAxes = ({ batch, heads, granules }: Pick<SelectAxes, "batch" | "heads" | "granules">) => ({
  tokens: batch * heads,
  vocab: batch * heads,
  dim: granules,
});
