/** Which way a search goes: the codes first, where that pays, else the rows themselves. */
import { bitAt } from "../../op/elements.js";
import type { Metric } from "../scan/reference.js";
import type { Aim } from "./bounds.js";
import { type Certifier, widths } from "./certified.js";
import { lengthOf } from "./codes.js";
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
    const prepared = new Float32Array(n * dim);
    const aims = Array.from({ length: n }, (_, q) =>
      prepare(metric, queries.subarray(q * dim, (q + 1) * dim), this.#rows.centre, prepared.subarray(q * dim, (q + 1) * dim)),
    );
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
        const done = this.#certifier.finish(codes, i, width, query, aims[q] as Aim, k, passes, width === allowed);
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

/** Writes the query as the codes meet it, in f32: under cos at length 1, under l2 less the centre. */
export function prepare(metric: Metric, query: Float32Array, centre: Float32Array, target: Float32Array): Aim {
  const length = lengthOf(query);
  const divisor = metric === "cos" && length > 0 ? length : 1;
  let offset = 0;
  for (let i = 0; i < query.length; i++) {
    const value = (query[i] as number) / divisor;
    target[i] = metric === "l2" ? value - (centre[i] as number) : value;
    offset += value * (centre[i] as number);
  }
  return { length, offset: metric === "l2" ? 0 : offset };
}
