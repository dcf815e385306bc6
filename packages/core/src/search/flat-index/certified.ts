/**
 * Certified search (one query): the best codes, their bounds, the rows that these leave, and a proof that no other row
 * can be among the k best. The answer is that of a full scan, ids and bits, or there is none.
 */
import type { HostArray } from "../../dtype.js";
import { type Aim, Bounds } from "./bounds.js";
import { looseRows } from "./loose.js";
import type { Rows } from "./rows.js";
import type { BoundScan, Scans } from "./scans.js";

/** How many of the best codes are looked at: enough for most data, and then as many as cost little beside a full scan. */
export const widths = (k: number): number[] =>
  [4 * k + 24, Math.max(512, 8 * k)].filter((width, i, all) => width <= 1024 && width > (all[i - 1] ?? k));

export interface Certified {
  readonly scan: BoundScan;
  /** Rows that were scored exactly. */
  readonly survivors: number;
}

export class Certifier {
  readonly #rows: Rows;
  readonly #scans: Scans;
  readonly #bounds: Bounds;
  #lows = new Float64Array(0);
  #highs = new Float64Array(0);
  /** Rows of `gathered`, ascending. */
  readonly #kept: number[] = [];

  constructor(rows: Rows, scans: Scans) {
    this.#rows = rows;
    this.#scans = scans;
    this.#bounds = new Bounds(rows.settings.metric, rows.settings.dim);
  }

  /**
   * Finishes query `q` of a scan over the codes that was asked for `width` of them. `allowed`: may the row be returned;
   * `all`: were there no more rows than that? Undefined where the bounds do not prove the result.
   */
  finish(
    codes: BoundScan,
    q: number,
    width: number,
    query: Float32Array,
    aim: Aim,
    k: number,
    allowed: (row: number) => boolean,
    all: boolean,
  ): Certified | undefined {
    const { errors, loose, longest, centreLength } = this.#rows;
    const bounds = this.#bounds;
    bounds.aim(aim, longest, centreLength);
    const found = codes.found[q] as number;
    const first = q * width;
    if (this.#lows.length < width) {
      this.#lows = new Float64Array(width);
      this.#highs = new Float64Array(width);
    }
    for (let i = 0; i < found; i++) {
      bounds.set(codes.scores[first + i] as number, errors[codes.ids[first + i] as number] as number);
      this.#lows[i] = bounds.low;
      this.#highs[i] = bounds.high;
    }
    // k rows score at least this.
    const sorted = this.#lows.slice(0, found).sort();
    const least = found >= k ? (sorted[found - k] as number) : Number.NEGATIVE_INFINITY;
    this.#kept.length = 0;
    for (let i = 0; i < found; i++) if ((this.#highs[i] as number) >= least) this.#kept.push(codes.ids[first + i] as number);
    const inCodes = new Set(codes.ids.subarray(first, first + found));
    for (const row of loose.rows) if (!inCodes.has(row) && row < this.#rows.count && allowed(row)) this.#kept.push(row);
    this.#kept.sort((a, b) => a - b);
    const result = this.#score(query, k, width + looseRows);
    if (all) return { scan: result, survivors: this.#kept.length };
    // No row that was left out scores above the bound of the worst code that was returned.
    bounds.set(codes.scores[first + width - 1] as number, loose.rest);
    const worst = result.scores[k - 1] as number;
    const reached = this.#rows.settings.metric === "l2" ? -worst : worst;
    return result.found[0] === k && reached > bounds.high ? { scan: result, survivors: this.#kept.length } : undefined;
  }

  /** Gathers the kept rows and scores them; ids become the index's. */
  #score(query: Float32Array, k: number, room: number): BoundScan {
    const { dim } = this.#rows.settings;
    const source = this.#rows.tensors.rows.data as Float32Array;
    const scan = this.#scans.gathered(room, k);
    const target = scan.rows as HostArray as Float32Array;
    for (const [i, row] of this.#kept.entries()) target.set(source.subarray(row * dim, (row + 1) * dim), i * dim);
    scan.queries.set(query);
    scan.run(1, this.#kept.length);
    for (let i = 0; i < (scan.found[0] as number); i++) scan.ids[i] = this.#kept[scan.ids[i] as number] as number;
    return scan;
  }
}
