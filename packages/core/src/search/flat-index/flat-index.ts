/// <reference lib="esnext.disposable" preserve="true" />
/** An index without structure: every search looks at every row, most of them as i8 codes only, and is exact. */
import { isDevice } from "../../backend.js";
import { defaultHotset } from "../../default.js";
import { DTypeError, describe, HotsetError, ShapeError } from "../../errors.js";
import type { Hotset } from "../../hotset.js";
import type { Metric } from "../scan/reference.js";
import { scan } from "../scan/spec.js";
import { Certifier } from "./certified.js";
import { type Source, sourceOf } from "./container.js";
import { type Id, Ids } from "./ids.js";
import { RowFilter } from "./row-filter.js";
import { Rows } from "./rows.js";
import { openFlat, saveFlat } from "./saved.js";
import { Scans } from "./scans.js";
import { type Hit, type SearchCounters, Searcher } from "./searcher.js";
import { checkedRows, checkedValues, type RowDType, type Stored, type Vectors } from "./vectors.js";

export interface FlatIndexSettings {
  /** Components of a vector, 1 to 65536. */
  readonly dim: number;
  /** Default `cos`. `l2` scores by the squared distance: smaller is better. */
  readonly metric?: Metric;
  /** How vectors are stored: f32 as given (default), f16 rounded, i8 as 127 / max|x| with a scale each. */
  readonly dtype?: RowDType;
  /** Default: the process-wide one. */
  readonly hotset?: Hotset;
  /** A backend on the CPU; default: the fastest for scans. */
  readonly backend?: string;
  /** Rows to make room for at once; the index grows by itself. */
  readonly capacity?: number;
  /** Search the codes first? Default: where that is faster (up to 8 queries at a time, on native and wasm). */
  readonly certify?: boolean;
}

export type OpenSettings = Pick<FlatIndexSettings, "hotset" | "backend" | "certify">;

export interface SearchSettings {
  /** Results a query, 1 to 1024; default 10. */
  readonly k?: number;
  /** Which rows may be returned: by their id, or `index.filter(...)`, which asks once for many searches. */
  readonly filter?: RowFilter | ((id: Id) => boolean);
}

const metrics: readonly Metric[] = ["cos", "ip", "l2"];
const dtypes: readonly RowDType[] = ["f32", "f16", "i8"];

/** A part of dead rows above which `remove` compacts by itself: searches read dead rows too. */
const deadShare = 0.25;

/**
 * Exact nearest neighbours over vectors that come and go.
 *
 * `search` returns what `search/scan` over the stored vectors returns, ids and bits, ties by insertion order: it reads
 * i8 codes (a quarter of the bytes), bounds what they lose, scores the rows that the bounds leave, and proves that no
 * other row can be a result. Where that fails it scans the vectors themselves. `counters` say how often.
 *
 * Ids are numbers or strings, one kind an index. A method that throws has changed nothing.
 *
 * Invariants: rows 0..count-1 are in insertion order; a row is live while its id maps to it; `dead` counts the others.
 */
export class FlatIndex {
  readonly dim: number;
  readonly metric: Metric;
  readonly dtype: RowDType;
  /** The backend that scans. */
  readonly backend: string;
  /** Changes with every change of the rows: a filter holds for one version. */
  #version = 0;
  readonly #rows: Rows;
  readonly #ids = new Ids();
  readonly #scans: Scans;
  readonly #searcher: Searcher;
  #disposed = false;

  /** Finds the backend and makes an empty index. Throws HotsetError where a setting cannot be. */
  static async create(settings: FlatIndexSettings): Promise<FlatIndex> {
    return new FlatIndex(settings.hotset ?? (await defaultHotset()), settings);
  }

  constructor(hotset: Hotset, settings: Omit<FlatIndexSettings, "hotset">) {
    const { dim, metric = "cos", dtype = "f32", capacity = 0 } = settings;
    const where = "FlatIndex";
    if (!Number.isInteger(dim) || dim < 1 || dim > 65536)
      throw new ShapeError({ where, expected: "dim to be a whole number from 1 to 65536", received: describe(dim) });
    if (!metrics.includes(metric))
      throw new HotsetError("argument", { where, expected: `a metric of ${metrics.join(", ")}`, received: describe(metric) });
    if (!dtypes.includes(dtype)) throw new DTypeError({ where, expected: `a dtype of ${dtypes.join(", ")}`, received: describe(dtype) });
    if (!Number.isInteger(capacity) || capacity < 0)
      throw new ShapeError({ where, expected: "capacity to be a whole number", received: describe(capacity) });
    const nominal = { batch: 1, count: Math.max(capacity, 10_000), dim, k: 10 };
    const wish = settings.backend === undefined ? {} : { backend: settings.backend };
    const plan = hotset.planSync(scan, nominal, { metric, rows: dtype, filter: false }, { ...wish, resident: ["rows", "rowScale"] });
    this.backend = plan.backend;
    plan.dispose();
    [this.dim, this.metric, this.dtype] = [dim, metric, dtype];
    this.#rows = new Rows({ hotset, backend: this.backend, dim, metric, dtype });
    this.#scans = new Scans(this.#rows);
    const certify = settings.certify ?? this.backend !== "js";
    this.#searcher = new Searcher(this.#rows, this.#ids, this.#scans, new Certifier(this.#rows, this.#scans), certify);
    if (capacity > 0) this.#rows.reserve(capacity);
  }

  /**
   * An index from the bytes that `toBytes` gave, or a file's, which are copied. Throws FormatError where they are damaged,
   * truncated or something else. In Node, `openIndex(path)` reads a file without holding it twice.
   */
  static async fromBytes(bytes: Uint8Array, settings: OpenSettings = {}): Promise<FlatIndex> {
    return FlatIndex.load(settings.hotset ?? (await defaultHotset()), sourceOf(bytes, "FlatIndex.fromBytes"), settings);
  }

  /** @internal */
  static load(hotset: Hotset, source: Source, settings: OpenSettings): FlatIndex {
    return openFlat(source, ({ dim, metric, dtype }) => {
      const index = new FlatIndex(hotset, { ...settings, dim, metric, dtype });
      const inPlace = hotset.backends.some((backend) => backend.id === index.backend && !isDevice(backend) && backend.inPlace);
      return { index, rows: index.#rows, ids: index.#ids, inPlace };
    });
  }

  /** The index as one file, which any platform can open. Compacts first. */
  toBytes(): Uint8Array {
    const parts = [...this.parts()];
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }

  /** @internal The file in pieces that are views of this index's memory. */
  parts(): Generator<Uint8Array> {
    this.compact();
    const { dim, metric, dtype } = this;
    return saveFlat({ dim, metric, dtype }, this.#rows, this.#ids);
  }

  /** Live rows. */
  get size(): number {
    return this.#ids.size;
  }

  /** What searches did since the index was made. */
  get counters(): Readonly<SearchCounters> {
    return { ...this.#searcher.counters };
  }

  /** Bytes held: vectors, codes, scales and the arrays of searches; ids apart. */
  get bytes(): number {
    return this.#rows.bytes + this.#scans.bytes;
  }

  /** Rows that were removed and still take room. */
  get dead(): number {
    return this.#rows.count - this.size;
  }

  /**
   * Appends `vectors [rows, dim]` and returns their ids: the given ones, else the next numbers. Throws ShapeError where
   * the length is no multiple of dim, DTypeError for ids of another kind, HotsetError for an id that is there, or for a
   * NaN or an infinity, by its row.
   */
  add(vectors: Vectors, ids?: readonly Id[] | ArrayLike<number>): Id[] {
    const { stored, count } = this.#stored("add", vectors);
    const names = this.#ids.check("FlatIndex.add", count, ids);
    const first = this.#rows.count;
    if (first + count > 2 ** 31 - 1)
      throw new ShapeError({ where: "FlatIndex.add", expected: "at most 2^31 - 1 rows", received: `${first + count}` });
    this.#rows.append(stored, count);
    this.#ids.push(names);
    this.#version++;
    return names;
  }

  /** Replaces the vector of an id, which keeps its place among equals. Throws as `add` does, and where there is no such id. */
  update(id: Id, vector: Vectors): void {
    const { stored, count } = this.#stored("update", vector);
    if (count !== 1) throw new ShapeError({ where: "FlatIndex.update", expected: `${this.dim} numbers`, received: `${count * this.dim}` });
    const row = this.#ids.rowOf(id);
    if (row === undefined)
      throw new HotsetError("argument", { where: "FlatIndex.update", expected: "an id of the index", received: describe(id) });
    this.#rows.replace(row, stored);
    this.#version++;
  }

  /** Removes rows and returns how many were there. A quarter of dead rows is compacted away, and their memory freed. */
  remove(ids: Id | Iterable<Id>): number {
    this.#live("remove");
    let removed = 0;
    for (const id of typeof ids === "object" ? ids : [ids]) {
      if (this.#ids.rowOf(id) === undefined) continue;
      this.#ids.remove(id);
      removed++;
    }
    if (removed === 0) return 0;
    this.#version++;
    if (this.dead > deadShare * this.#rows.count) this.compact();
    return removed;
  }

  /** Drops dead rows now; ties keep their order. */
  compact(): void {
    this.#live("compact");
    if (this.dead === 0) return;
    this.#rows.compact((row) => this.#ids.live(row));
    this.#ids.compact();
    this.#version++;
  }

  has(id: Id): boolean {
    return this.#ids.rowOf(id) !== undefined;
  }

  /** The stored vector of an id, as f32 `[dim]`; undefined where there is none. */
  get(id: Id): Float32Array | undefined {
    this.#live("get");
    const row = this.#ids.rowOf(id);
    return row === undefined ? undefined : this.#rows.read(row);
  }

  /** Ids in no stated order. */
  ids(): IterableIterator<Id> {
    return this.#ids.keys();
  }

  /** The rows whose ids pass, for any number of searches until the index changes. */
  filter(passes: (id: Id) => boolean): RowFilter {
    this.#live("filter");
    const bits = new Uint32Array(Math.ceil(this.#rows.count / 32));
    let count = 0;
    for (let row = 0; row < this.#rows.count; row++) {
      if (!this.#ids.live(row) || !passes(this.#ids.at(row))) continue;
      bits[row >> 5] = (bits[row >> 5] as number) | (1 << (row & 31));
      count++;
    }
    return new RowFilter(this, this.#version, bits, count);
  }

  /**
   * The best rows for each of `queries [n, dim]`: one Hit a query, best first, fewer than k where fewer qualify. A zero
   * vector has cosine 0 with everything. Throws ShapeError or HotsetError as `add` does.
   */
  search(queries: Vectors, { k = 10, filter }: SearchSettings = {}): Hit[] {
    const where = "FlatIndex.search";
    const { values, count } = this.#values("search", queries);
    if (!Number.isInteger(k) || k < 1 || k > 1024)
      throw new ShapeError({ where, expected: "k to be a whole number from 1 to 1024", received: describe(k) });
    const chosen = typeof filter === "function" ? this.filter(filter) : (filter ?? this.#alive());
    if (chosen && (chosen.index !== this || chosen.version !== this.#version))
      throw new HotsetError("argument", {
        where,
        expected: "a filter made from this index as it is",
        received: chosen.index === this ? "one made before the index changed" : "one of another index",
        hint: "Make it again with index.filter(...).",
      });
    return this.#searcher.search(values, count, k, chosen);
  }

  /** Afterwards every method throws; memory goes back. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#scans.dispose();
    this.#rows.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** What keeps dead rows out; undefined where there are none. */
  #alive(): RowFilter | undefined {
    return this.dead > 0 ? new RowFilter(this, this.#version, this.#ids.bits, this.size) : undefined;
  }

  #values(method: string, vectors: Vectors): { values: Float32Array; count: number } {
    this.#live(method);
    return checkedValues(`FlatIndex.${method}`, vectors, this.dim);
  }

  #stored(method: string, vectors: Vectors): { stored: Stored; count: number } {
    this.#live(method);
    return checkedRows(`FlatIndex.${method}`, vectors, this.dim, this.dtype);
  }

  #live(method: string): void {
    if (this.#disposed)
      throw new HotsetError("disposed", { where: `FlatIndex.${method}`, expected: "a live index", received: "one that was disposed" });
  }
}
