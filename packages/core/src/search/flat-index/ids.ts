/** The names of rows: numbers or strings, one kind an index, each once. */

import { DTypeError, describe, HotsetError } from "../../errors.js";
import { bitAt } from "../../op/elements.js";

export type Id = number | string;
export type IdKind = "number" | "string";

/** Invariants: `#rowOf` holds exactly the live rows, which are the set bits of `bits`; `#of` names every row, live or not. */
export class Ids {
  kind: IdKind | undefined;
  readonly #rowOf = new Map<Id, number>();
  #of: Id[] = [];
  /** Live rows: bit set; zeros behind the last row. */
  bits = new Uint32Array(0);
  /** The first number that rows without names get. */
  next = 0;

  get size(): number {
    return this.#rowOf.size;
  }

  rowOf(id: Id): number | undefined {
    return this.#rowOf.get(id);
  }

  at(row: number): Id {
    return this.#of[row] as Id;
  }

  live(row: number): boolean {
    return bitAt(this.bits, row);
  }

  /** The names of the rows in order; of an index without dead rows. */
  names(): readonly Id[] {
    return this.#of;
  }

  keys(): IterableIterator<Id> {
    return this.#rowOf.keys();
  }

  /** Names for `count` new rows, given or the next numbers; throws with nothing changed. */
  check(where: string, count: number, given: readonly Id[] | ArrayLike<number> | undefined): Id[] {
    if (given === undefined) {
      if (this.kind === "string")
        throw new HotsetError("argument", { where, expected: "ids, as the index's rows are named by strings", received: "none" });
      return Array.from({ length: count }, (_, i) => this.next + i);
    }
    const ids = Array.from(given as ArrayLike<Id>);
    if (ids.length !== count) throw new HotsetError("argument", { where, expected: `${count} ids, one a row`, received: `${ids.length}` });
    let kind = this.kind;
    const seen = new Set<Id>();
    for (const id of ids) {
      if (typeof id !== "string" && !Number.isSafeInteger(id))
        throw new DTypeError({ where, expected: "ids that are strings or whole numbers up to 2^53", received: describe(id) });
      if (typeof id === "string" && /\p{Surrogate}/u.test(id))
        throw new DTypeError({ where, expected: "ids that are whole characters", received: describe(id) });
      kind ??= typeof id as IdKind;
      if (typeof id !== kind) throw new DTypeError({ where, expected: `ids of one kind, ${kind}s`, received: describe(id) });
      // Map takes -0 for 0; so does a file.
      if (this.#rowOf.has(id) || seen.has(id))
        throw new HotsetError("argument", {
          where,
          expected: "ids that are not in the index",
          received: `${describe(id)} again`,
          hint: "Use update to replace a row.",
        });
      seen.add(id);
    }
    return ids;
  }

  /** Names the next rows. `ids` have been checked. */
  push(ids: readonly Id[]): void {
    const words = Math.ceil((this.#of.length + ids.length) / 32);
    if (words > this.bits.length) {
      const bits = new Uint32Array(Math.max(words, 2 * this.bits.length));
      bits.set(this.bits);
      this.bits = bits;
    }
    for (const id of ids) {
      this.kind ??= typeof id as IdKind;
      const row = this.#of.push(id) - 1;
      this.#rowOf.set(id, row);
      this.bits[row >> 5] = (this.bits[row >> 5] as number) | (1 << (row & 31));
      if (typeof id === "number" && id >= this.next) this.next = id + 1;
    }
  }

  /** Forgets a name that is there; its row is dead. */
  remove(id: Id): void {
    const row = this.#rowOf.get(id) as number;
    this.#rowOf.delete(id);
    this.bits[row >> 5] = (this.bits[row >> 5] as number) & ~(1 << (row & 31));
  }

  /** Drops dead rows; the others move up in their order. */
  compact(): void {
    const kept = this.#of.filter((_, row) => this.live(row));
    this.#of = [];
    this.bits = new Uint32Array(Math.ceil(kept.length / 32));
    this.push(kept);
  }
}
