/**
 * The rows whose codes lose most. One bound holds for all rows that a scan of the codes does not return, so a single
 * row that is coded badly (one a thousand times as long as the others) would spoil it for every query: the few worst
 * are kept apart and always scored exactly.
 */

/** A few microseconds of scoring a query, beside half a millisecond for 100,000 codes. */
export const looseRows = 32;

/** Invariant: every row that was added is in `rows` or has an error of at most `rest`. */
export class Loose {
  /** At most `looseRows` rows, the one with the smallest error last. */
  readonly rows: number[] = [];
  readonly #errors: number[] = [];
  /** The largest error of any other row. */
  rest = 0;

  /** Adds a row; one that is written again is added again, and its old error counts on. */
  add(row: number, error: number): void {
    const known = this.rows.indexOf(row);
    if (known >= 0) {
      this.rows.splice(known, 1);
      this.#errors.splice(known, 1);
    }
    let at = this.rows.length;
    while (at > 0 && error > (this.#errors[at - 1] as number)) at--;
    if (at < looseRows) {
      this.rows.splice(at, 0, row);
      this.#errors.splice(at, 0, error);
      if (this.rows.length <= looseRows) return;
      this.rows.pop();
      this.rest = Math.max(this.rest, this.#errors.pop() as number);
    } else {
      this.rest = Math.max(this.rest, error);
    }
  }

  clear(): void {
    this.rows.length = this.#errors.length = 0;
    this.rest = 0;
  }
}
