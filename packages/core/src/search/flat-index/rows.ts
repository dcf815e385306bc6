/** The rows of an index, in the memory of the backend that scans them: capacity, growth, compaction. */
import type { DType } from "../../dtype.js";
import { f16ToNumber } from "../../half.js";
import type { Hotset } from "../../hotset.js";
import { Tensor } from "../../tensor.js";
import type { Metric } from "../scan/reference.js";
import { encodeRow, lengthOf, meanOf } from "./codes.js";
import { Loose } from "./loose.js";
import type { RowDType, Stored } from "./vectors.js";

/** What a row is made of, by name: the tensors of f32 and f16 rows with their codes, or of i8 rows, which are their own. */
interface Tensors {
  readonly rows: Tensor;
  readonly rowScale?: Tensor<"f32">;
  readonly codes?: Tensor<"i8">;
  readonly codeScale?: Tensor<"f32">;
}

/** The arrays that a file holds. */
export type RowPart = "rows" | "rowScale" | "codes" | "codeScale" | "codeErrors" | "centre";

export interface RowSettings {
  readonly hotset: Hotset;
  readonly backend: string;
  readonly dim: number;
  readonly metric: Metric;
  readonly dtype: RowDType;
}

const leastCapacity = 64;
/** Fewer rows say little of those to come. */
const rowsForCentre = 256;

/**
 * Invariants: 0 <= count <= capacity; every array holds `capacity` rows; codes, scales and errors of rows below `count`
 * are those of `encodeRow`; `longest` is at least every row's length, and `loose` as loose.ts says.
 */
export class Rows {
  readonly settings: RowSettings;
  count = 0;
  capacity = 0;
  /** At least the `length` of every row's code. */
  longest = 0;
  readonly loose = new Loose();
  /** f32 [dim]: the mean of the first rows, which is taken off every row before it is coded. */
  readonly centre: Float32Array;
  #centreLength = 0;
  #centred = false;
  /** f32 [capacity]: what each code loses at most. */
  errors: Float32Array = new Float32Array(0);
  /** How often the arrays were replaced: steps that are bound to older ones must be bound again. */
  moves = 0;
  #tensors: Tensors | undefined;
  readonly #row: Float64Array;

  constructor(settings: RowSettings) {
    this.settings = settings;
    this.#row = new Float64Array(settings.dim);
    this.centre = new Float32Array(settings.dim);
  }

  get centreLength(): number {
    return this.#centreLength;
  }

  get coded(): boolean {
    return this.settings.dtype !== "i8";
  }

  get tensors(): Tensors {
    return this.#tensors as Tensors;
  }

  /** Bytes held for rows, codes, scales and errors. */
  get bytes(): number {
    const { dim, dtype } = this.settings;
    const width = dtype === "f32" ? 4 : dtype === "f16" ? 2 : 1;
    return this.capacity * (width * dim + (this.coded ? dim + 8 : 4));
  }

  /** Makes room for `count` rows in all. Throws what the backend throws without memory, with nothing changed. */
  reserve(count: number): void {
    if (count > this.capacity) this.#move(Math.max(leastCapacity, count, Math.ceil(this.capacity * 1.5)));
  }

  /** Appends `count` rows. */
  append(source: Stored, count: number): void {
    const total = this.count + count;
    this.reserve(total);
    for (let i = 0; i < count; i++) this.#put(this.count + i, source, i);
    let from = this.count;
    if (this.count === 0) this.#centred = false;
    if (!this.#centred && this.coded && total >= rowsForCentre) {
      this.#centred = true;
      this.#setCentre(total);
      from = 0;
    }
    for (let row = from; row < total; row++) this.#encode(row);
    this.count = total;
  }

  /** Replaces a row. */
  replace(row: number, source: Stored): void {
    this.#put(row, source, 0);
    this.#encode(row);
  }

  #put(row: number, source: Stored, from: number): void {
    const { dim } = this.settings;
    const { rows, rowScale } = this.tensors;
    (rows.data as Float32Array).set((source.rows as Float32Array).subarray(from * dim, (from + 1) * dim), row * dim);
    if (rowScale && source.scale) rowScale.data[row] = source.scale[from] as number;
  }

  #encode(row: number): void {
    const { codes, codeScale } = this.tensors;
    if (!codes || !codeScale) return;
    const { dim, metric } = this.settings;
    const { scale, error, length } = encodeRow(metric, this.#widen(row), this.centre, codes.data, row * dim);
    codeScale.data[row] = scale;
    this.errors[row] = error;
    this.longest = Math.max(this.longest, length);
    this.loose.add(row, error);
  }

  /** Rows that share a large part, as most embeddings do, lose less without it. */
  #setCentre(count: number): void {
    const { dim, metric } = this.settings;
    const mean = meanOf(metric, count, dim, (row) => this.#widen(row));
    // The mean of finite numbers may be beyond f32; then the codes do without.
    this.centre.set(mean.every(Number.isFinite) ? mean : new Float32Array(dim));
    this.#centreLength = lengthOf(this.centre);
    this.longest = 0;
    this.loose.clear();
  }

  /** The bytes of rows 0..count-1 of each array, as a file holds them. */
  parts(): Record<RowPart, Uint8Array | undefined> {
    const { dim } = this.settings;
    const bytes = (array: (ArrayBufferView & { BYTES_PER_ELEMENT?: number }) | undefined, width: number): Uint8Array | undefined =>
      array && new Uint8Array(array.buffer, array.byteOffset, this.count * width * (array.BYTES_PER_ELEMENT as number));
    const { rows, rowScale, codes, codeScale } = this.#tensors ?? {};
    return {
      rows: bytes(rows?.data ?? new Uint8Array(0), dim),
      rowScale: bytes(rowScale?.data, 1),
      codes: bytes(codes?.data, dim),
      codeScale: bytes(codeScale?.data, 1),
      codeErrors: this.coded ? bytes(this.errors, 1) : undefined,
      centre: this.coded ? new Uint8Array(this.centre.buffer) : undefined,
    };
  }

  /** The first rows, from a file: `fill` writes the bytes of each part. What it throws leaves this without rows. */
  load(count: number, fill: (part: RowPart, target: Uint8Array) => void): void {
    this.reserve(count);
    this.count = count;
    try {
      for (const [part, target] of Object.entries(this.parts())) if (target) fill(part as RowPart, target);
      this.#measure();
    } catch (error) {
      this.count = 0;
      throw error;
    }
  }

  /** The first rows, in memory that may be written and is kept: a mapped file. */
  adopt(count: number, views: Readonly<Partial<Record<RowPart, Uint8Array>>>): void {
    const { dim, dtype, backend } = this.settings;
    const tensor = (part: RowPart, type: DType, shape: readonly number[]): object => {
      const bytes = views[part];
      return bytes ? { [part]: new Tensor(type, shape, backend, { bytes, release() {} }) } : {};
    };
    this.#tensors = {
      ...tensor("rows", dtype, [count, dim]),
      ...tensor("rowScale", "f32", [count]),
      ...tensor("codes", "i8", [count, dim]),
      ...tensor("codeScale", "f32", [count]),
    } as unknown as Tensors;
    const { codeErrors, centre } = views;
    if (centre) new Uint8Array(this.centre.buffer).set(centre);
    if (codeErrors) this.errors = new Float32Array(codeErrors.buffer, codeErrors.byteOffset, count);
    this.capacity = this.count = count;
    this.moves++;
    this.#measure();
  }

  /** The values of a row. */
  read(row: number): Float32Array {
    return Float32Array.from(this.#widen(row));
  }

  /** Keeps the rows of which `kept` says so, in their order, and gives back memory that is not needed. */
  compact(kept: (row: number) => boolean): void {
    const arrays = this.#arrays();
    let to = 0;
    for (let from = 0; from < this.count; from++) {
      if (!kept(from)) continue;
      if (from !== to) for (const { array, width } of arrays) array.copyWithin(to * width, from * width, (from + 1) * width);
      to++;
    }
    this.count = to;
    if (to <= this.capacity / 2 && this.capacity > leastCapacity) this.#move(Math.max(leastCapacity, to));
    this.loose.clear();
    if (this.coded) for (let row = 0; row < to; row++) this.loose.add(row, this.errors[row] as number);
  }

  /** `longest` and `loose` of rows that came with their codes. Throws RangeError where a scale or an error cannot be one. */
  #measure(): void {
    const { rowScale, codes, codeScale } = this.tensors ?? {};
    const { dim } = this.settings;
    if (!this.centre.every(Number.isFinite)) throw new RangeError("a centre that is not finite");
    this.#centreLength = lengthOf(this.centre);
    this.#centred = this.count >= rowsForCentre;
    for (let row = 0; row < this.count; row++) {
      const scale = (rowScale ?? codeScale)?.data[row] as number;
      const error = this.coded ? (this.errors[row] as number) : 0;
      if (!(scale >= 0 && error >= 0 && scale < Infinity))
        throw new RangeError(`a scale of ${scale} and an error of ${error} in row ${row}`);
      if (!codes) continue;
      this.loose.add(row, error);
      let square = 0;
      for (let i = row * dim; i < (row + 1) * dim; i++) square += (codes.data[i] as number) ** 2;
      // |u| is at most |scale * code| + error.
      this.longest = Math.max(this.longest, scale * Math.sqrt(square) * (1 + 2 ** -20) + 2 * error);
    }
  }

  dispose(): void {
    this.#release(this.#tensors);
    this.#tensors = undefined;
    this.errors = new Float32Array(0);
    this.count = this.capacity = 0;
    this.moves++;
  }

  #widen(row: number): Float64Array {
    const { dim, dtype } = this.settings;
    const { rows, rowScale } = this.tensors;
    const data = rows.data as Float32Array;
    const scale = rowScale ? (rowScale.data[row] as number) : 1;
    for (let i = 0; i < dim; i++) {
      const value = data[row * dim + i] as number;
      this.#row[i] = dtype === "f16" ? f16ToNumber(value) : scale * value;
    }
    return this.#row;
  }

  /** Every array, with how many elements of it are a row's. */
  #arrays(): { array: Float32Array; width: number }[] {
    const { rows, rowScale, codes, codeScale } = this.tensors;
    const { dim } = this.settings;
    const parts = [
      { array: rows.data, width: dim },
      { array: rowScale?.data, width: 1 },
      { array: codes?.data, width: dim },
      { array: codeScale?.data, width: 1 },
      { array: this.coded ? this.errors : undefined, width: 1 },
    ];
    return parts.filter((part): part is { array: Float32Array; width: number } => part.array !== undefined);
  }

  #move(capacity: number): void {
    const old = this.#tensors;
    const next = this.#allocate(capacity);
    const { dim } = this.settings;
    for (const name of ["rows", "rowScale", "codes", "codeScale"] as const) {
      const width = name === "rows" || name === "codes" ? dim : 1;
      const [to, from] = [next[name]?.data as Float32Array | undefined, old?.[name]?.data as Float32Array | undefined];
      if (to && from) to.set(from.subarray(0, this.count * width));
    }
    if (this.coded) {
      const errors = new Float32Array(capacity);
      errors.set(this.errors.subarray(0, this.count));
      this.errors = errors;
    }
    this.#tensors = next;
    this.capacity = capacity;
    this.moves++;
    this.#release(old);
  }

  #allocate(capacity: number): Tensors {
    const { hotset, backend, dim, dtype } = this.settings;
    const made: Partial<Record<keyof Tensors, Tensor>> = {};
    const shapes: [keyof Tensors, DType, readonly number[]][] = [
      ["rows", dtype, [capacity, dim]],
      ...(this.coded
        ? ([
            ["codes", "i8", [capacity, dim]],
            ["codeScale", "f32", [capacity]],
          ] as [keyof Tensors, DType, readonly number[]][])
        : ([["rowScale", "f32", [capacity]]] as [keyof Tensors, DType, readonly number[]][])),
    ];
    try {
      for (const [name, type, shape] of shapes) made[name] = hotset.alloc(type, shape, backend);
    } catch (error) {
      this.#release(made as Tensors);
      throw error;
    }
    return made as unknown as Tensors;
  }

  #release(tensors: Tensors | undefined): void {
    for (const tensor of Object.values(tensors ?? {}) as (Tensor | undefined)[]) tensor?.dispose();
  }
}
