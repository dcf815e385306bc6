/** Which way a search goes: the codes first, where that pays, else the rows themselves. */
import { bitAt } from "../../op/elements.js";
import { type Certifier, widths } from "./certified.js";
import type { Id, Ids } from "./ids.js";
import type { RowFilter } from "./row-filter.js";
import type { Rows } from "./rows.js";
import type { BoundScan, Scans } from "./scans.js";

/** The results of one query, best first. */
export interface Hit {
  readonly ids: Id[];
  /** Canonical scores, as search/scan gives them: cosine, inner product, or squared distance. */
  readonly scores: Float32Array;
}

export interface SearchCounters {
  /** Queries answered. */
  queries: number;
  /** Queries whose result from the codes was proved. */
  certified: number;
  /** Queries that the codes could not answer: the rows were scanned as well. */
  fallbacks: number;
  /** Queries for which only the rows were scanned, by choice: many at once, few rows, or codes that failed before. */
  scanned: number;
  /** Rows scored exactly for certified queries, in all. */
  survivors: number;
}

/** Queries that share a pass over the codes: more of them are bound by arithmetic, which codes do not save. */
const codeBatch = 8;
const rowBatch = 64;
/** Codes that failed are not asked again for this many queries, doubled at each failure. */
const longestRest = 256;

export class Searcher {
  readonly counters: SearchCounters = { queries: 0, certified: 0, fallbacks: 0, scanned: 0, survivors: 0 };
  readonly #rows: Rows;
  readonly #ids: Ids;
  readonly #scans: Scans;
  readonly #certifier: Certifier;
  readonly #certify: boolean;
  /** Which of `widths(k)` worked last. */
  #level = 0;
  #rest = 0;
  #resting = 0;

  constructor(rows: Rows, ids: Ids, scans: Scans, certifier: Certifier, certify: boolean) {
    this.#rows = rows;
    this.#ids = ids;
    this.#scans = scans;
    this.#certifier = certifier;
    this.#certify = certify && rows.coded;
  }

  search(queries: Float32Array, count: number, k: number, filter: RowFilter | undefined): Hit[] {
    const allowed = filter ? filter.size : this.#rows.count;
    this.counters.queries += count;
    if (allowed === 0) return Array.from({ length: count }, () => ({ ids: [], scores: new Float32Array(0) }));
    if (filter) this.#scans.filter(filter.bits);
    const few = Math.min(k, allowed);
    const hits: Hit[] = [];
    const { dim } = this.#rows.settings;
    // Codes pay where they stand for many more rows than are scored exactly.
    const worth = this.#certify && count <= codeBatch && allowed >= 4 * ((widths(few)[0] ?? allowed) as number);
    for (let q = 0; q < count; ) {
      const coded = worth && this.#resting === 0;
      const n = Math.min(count - q, coded ? codeBatch : rowBatch);
      const block = queries.subarray(q * dim, (q + n) * dim);
      hits.push(...(coded ? this.#coded(block, n, few, allowed, filter) : this.#exact(block, n, few, filter)));
      if (!coded) {
        this.counters.scanned += n;
        this.#resting = Math.max(0, this.#resting - n);
      }
      q += n;
    }
    return hits;
  }

  #exact(queries: Float32Array, n: number, k: number, filter: RowFilter | undefined): Hit[] {
    const scan = this.#scans.exact(n === 1 ? 1 : n <= codeBatch ? codeBatch : rowBatch, k, filter !== undefined);
    scan.queries.set(queries);
    scan.run(n, this.#rows.count);
    return Array.from({ length: n }, (_, q) => this.#hit(scan, q, k));
  }

  /** The codes of the block once; each query's level rises where its bounds do not prove the result. */
  #coded(queries: Float32Array, n: number, k: number, allowed: number, filter: RowFilter | undefined): Hit[] {
    const { dim, metric } = this.#rows.settings;
    const hits: (Hit | undefined)[] = new Array(n);
    const lengths = new Float64Array(n);
    const prepared = new Float32Array(n * dim);
    for (let q = 0; q < n; q++) lengths[q] = prepare(queries, prepared, q * dim, dim, metric === "cos");
    const passes = filter ? (row: number): boolean => bitAt(filter.bits, row) : (): boolean => true;
    let left = Array.from({ length: n }, (_, q) => q);
    const levels = widths(k);
    this.#level = Math.min(this.#level, levels.length - 1);
    for (let level = this.#level; level < levels.length && left.length > 0; level++) {
      const width = Math.min(levels[level] as number, allowed);
      const codes = this.#scans.codes(n === 1 ? 1 : codeBatch, width, filter !== undefined);
      for (const [i, q] of left.entries()) codes.queries.set(prepared.subarray(q * dim, (q + 1) * dim), i * dim);
      codes.run(left.length, this.#rows.count);
      const next: number[] = [];
      for (const [i, q] of left.entries()) {
        const query = queries.subarray(q * dim, (q + 1) * dim);
        const done = this.#certifier.finish(codes, i, width, query, lengths[q] as number, k, passes, width === allowed);
        if (!done) {
          next.push(q);
          continue;
        }
        hits[q] = this.#hit(done.scan, 0, k);
        this.counters.certified++;
        this.counters.survivors += done.survivors;
      }
      if (next.length < left.length) this.#level = level;
      left = next;
    }
    if (left.length < n) this.#rest = 0;
    for (const q of left) {
      [hits[q]] = this.#exact(queries.subarray(q * dim, (q + 1) * dim), 1, k, filter);
      this.counters.fallbacks++;
    }
    if (left.length === n) {
      this.#rest = Math.min(longestRest, Math.max(1, 2 * this.#rest));
      this.#resting = this.#rest;
      this.#level = 0;
    }
    return hits as Hit[];
  }

  #hit(scan: BoundScan, q: number, k: number): Hit {
    const first = q * k;
    const found = scan.found[q] as number;
    const ids: Id[] = new Array(found);
    for (let i = 0; i < found; i++) ids[i] = this.#ids.at(scan.ids[first + i] as number);
    return { ids, scores: scan.scores.slice(first, first + found) };
  }
}

/** The query as the codes meet it: under cos at length 1, in f32. Returns its length. */
function prepare(queries: Float32Array, target: Float32Array, at: number, dim: number, unit: boolean): number {
  let square = 0;
  for (let i = at; i < at + dim; i++) square += (queries[i] as number) ** 2;
  const length = Math.sqrt(square);
  for (let i = at; i < at + dim; i++) target[i] = unit && length > 0 ? (queries[i] as number) / length : (queries[i] as number);
  return length;
}
