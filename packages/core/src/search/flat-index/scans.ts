/** The bound steps of search/scan that an index searches with: over its rows, over their codes, over a few gathered rows. */
import type { HostArray } from "../../dtype.js";
import type { Step } from "../../step.js";
import { scan } from "../scan/spec.js";
import type { Rows } from "./rows.js";
import { storedAs } from "./vectors.js";

type ScanStep = Step<typeof scan>;

/** A step with the arrays that its caller fills and reads. */
export interface BoundScan {
  readonly queries: Float32Array;
  readonly ids: Int32Array;
  readonly scores: Float32Array;
  readonly found: Uint32Array;
  /** Gathered rows only: where they go. */
  readonly rows?: HostArray;
  /** `count` only where it is not the index's: gathered rows. */
  run(batch: number, count: number): void;
}

/** Steps kept; a program searches with a few k, with and without a filter. */
const stepLimit = 12;

export class Scans {
  readonly #rows: Rows;
  /** Latest last. Every step of them belongs to the arrays of `#moves`. */
  readonly #steps = new Map<string, { scan: BoundScan; step: ScanStep; dispose(): void }>();
  #moves = -1;
  /** Rows that may be returned, for the steps with a filter: bits [capacity]. */
  #filter = new Uint32Array(0);

  constructor(rows: Rows) {
    this.#rows = rows;
  }

  /** Sets the rows that the steps with a filter return. */
  filter(bits: Uint32Array): void {
    this.#fresh();
    this.#filter.fill(0);
    this.#filter.set(bits.subarray(0, this.#filter.length));
  }

  /** Canonical scores of the stored rows themselves. */
  exact(batch: number, k: number, filtered: boolean): BoundScan {
    return this.#step(`rows ${batch} ${k} ${filtered}`, () => {
      const { metric, dtype } = this.#rows.settings;
      const { rows, rowScale } = this.#rows.tensors;
      const inputs = { rows, ...(rowScale ? { rowScale } : {}) };
      return this.#bind({ metric, rows: dtype, filter: filtered }, batch, this.#rows.capacity, k, inputs);
    });
  }

  /** Canonical scores of the codes: as vectors of their own, under cos of length about 1. */
  codes(batch: number, k: number, filtered: boolean): BoundScan {
    return this.#step(`codes ${batch} ${k} ${filtered}`, () => {
      const { codes, codeScale } = this.#rows.tensors;
      const metric = this.#rows.settings.metric === "l2" ? "l2" : "ip";
      const inputs = { rows: codes, rowScale: codeScale };
      return this.#bind({ metric, rows: "i8", filter: filtered }, batch, this.#rows.capacity, k, inputs);
    });
  }

  /** Canonical scores of up to `room` rows that the caller gathers. */
  gathered(room: number, k: number): BoundScan {
    return this.#step(`gathered ${room} ${k}`, () => {
      const { metric, dtype, dim } = this.#rows.settings;
      const { rows } = storedAs(dtype, new Float32Array(room * dim), dim);
      return this.#bind({ metric, rows: dtype, filter: false }, 1, room, k, { rows: { data: rows, dtype } }, rows);
    });
  }

  /** Bytes of the arrays that the steps hold. */
  get bytes(): number {
    let bytes = this.#filter.byteLength;
    for (const { scan: bound } of this.#steps.values())
      bytes += [bound.queries, bound.ids, bound.scores, bound.found, bound.rows].reduce((sum, array) => sum + (array?.byteLength ?? 0), 0);
    return bytes;
  }

  dispose(): void {
    for (const { dispose } of this.#steps.values()) dispose();
    this.#steps.clear();
  }

  #fresh(): void {
    if (this.#moves === this.#rows.moves) return;
    this.dispose();
    this.#filter = new Uint32Array(Math.ceil(this.#rows.capacity / 32));
    this.#moves = this.#rows.moves;
  }

  #step(key: string, make: () => { scan: BoundScan; step: ScanStep; dispose(): void }): BoundScan {
    this.#fresh();
    let known = this.#steps.get(key);
    if (known) this.#steps.delete(key);
    else known = make();
    this.#steps.set(key, known);
    const oldest = this.#steps.entries().next().value;
    if (this.#steps.size > stepLimit && oldest) {
      this.#steps.delete(oldest[0]);
      oldest[1].dispose();
    }
    return known.scan;
  }

  #bind(
    variant: { metric: "cos" | "ip" | "l2"; rows: "f32" | "f16" | "i8"; filter: boolean },
    batch: number,
    count: number,
    k: number,
    inputs: Readonly<Record<string, unknown>>,
    gathered?: HostArray,
  ) {
    const { hotset, backend, dim } = this.#rows.settings;
    const plan = hotset.planSync(scan, { batch, count, dim, k }, variant, { backend });
    const arrays = {
      queries: new Float32Array(batch * dim),
      ids: new Int32Array(batch * k),
      scores: new Float32Array(batch * k),
      found: new Uint32Array(batch),
    };
    const { queries, ...outputs } = arrays;
    const filter = variant.filter ? { filter: this.#filter } : {};
    const step = plan.bind({ queries, ...inputs, ...filter } as never, outputs as never) as unknown as ScanStep;
    plan.dispose();
    let [liveBatch, liveCount] = [batch, count];
    const bound: BoundScan = {
      ...arrays,
      ...(gathered ? { rows: gathered } : {}),
      run(queriesNow, rowsNow) {
        if (queriesNow !== liveBatch) step.set("batch", queriesNow);
        if (rowsNow !== liveCount) step.set("count", rowsNow);
        liveBatch = queriesNow;
        liveCount = rowsNow;
        step.run();
      },
    };
    return { scan: bound, step, dispose: () => step.dispose() };
  }
}
