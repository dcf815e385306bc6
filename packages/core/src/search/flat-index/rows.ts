/** The rows of an index, in the memory of the backend that scans them: capacity, growth, compaction. */
import type { DType, HostArray } from "../../dtype.js";
import { f16ToNumber, toF16, toI8Rows } from "../../half.js";
import type { Hotset } from "../../hotset.js";
import type { Tensor } from "../../tensor.js";
import type { Metric } from "../scan/reference.js";
import { encodeRow } from "./codes.js";
import { Loose } from "./loose.js";

/** How rows are stored; searches are exact over what is stored. */
export type RowDType = "f32" | "f16" | "i8";

/** Values as the index stores them. */
export interface Stored {
  readonly rows: HostArray;
  /** i8 only. */
  readonly scale?: Float32Array;
}

export const storedAs = (dtype: RowDType, values: Float32Array, dim: number): Stored => {
  if (dtype === "f32") return { rows: values };
  if (dtype === "f16") return { rows: toF16(values) };
  const { data, scale } = toI8Rows(values, dim);
  return { rows: data, scale };
};

/** What a row is made of, by name: the tensors of f32 and f16 rows with their codes, or of i8 rows, which are their own. */
interface Tensors {
  readonly rows: Tensor;
  readonly rowScale?: Tensor<"f32">;
  readonly codes?: Tensor<"i8">;
  readonly codeScale?: Tensor<"f32">;
}

export interface RowSettings {
  readonly hotset: Hotset;
  readonly backend: string;
  readonly dim: number;
  readonly metric: Metric;
  readonly dtype: RowDType;
}

const leastCapacity = 64;

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
  /** f32 [capacity]: what each code loses at most. */
  errors = new Float32Array(0);
  /** How often the arrays were replaced: steps that are bound to older ones must be bound again. */
  moves = 0;
  #tensors: Tensors | undefined;
  readonly #row: Float64Array;

  constructor(settings: RowSettings) {
    this.settings = settings;
    this.#row = new Float64Array(settings.dim);
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

  /** Writes the stored form of `source`'s row `from` at row `row`, which must be below the capacity. */
  write(row: number, source: Stored, from: number): void {
    const { dim, metric } = this.settings;
    const { rows, rowScale, codes, codeScale } = this.tensors;
    (rows.data as Float32Array).set((source.rows as Float32Array).subarray(from * dim, (from + 1) * dim), row * dim);
    if (rowScale && source.scale) rowScale.data[row] = source.scale[from] as number;
    if (!codes || !codeScale) return;
    const { scale, error, length } = encodeRow(metric, this.#widen(row), codes.data, row * dim);
    codeScale.data[row] = scale;
    this.errors[row] = error;
    this.longest = Math.max(this.longest, length);
    this.loose.add(row, error);
  }

  /** Rows whose codes are known already, as a file holds them. */
  adopt(count: number, parts: Readonly<Record<"rows" | "rowScale" | "codes" | "codeScale" | "errors", HostArray | undefined>>): void {
    this.reserve(count);
    const { dim, dtype } = this.settings;
    for (const name of ["rows", "rowScale", "codes", "codeScale"] as const) {
      const target = this.tensors[name]?.data as Float32Array | undefined;
      const source = parts[name] as Float32Array | undefined;
      if (target && source && target !== source) target.set(source);
    }
    if (parts.errors) this.errors.set(parts.errors as Float32Array);
    this.count = count;
    if (dtype === "i8") return;
    const { codes, codeScale } = this.tensors as Required<Tensors>;
    for (let row = 0; row < count; row++) {
      this.loose.add(row, this.errors[row] as number);
      // The length of the code by Cauchy-Schwarz's other side: at most 127 a component.
      const error = this.errors[row] as number;
      let square = 0;
      for (let i = row * dim; i < (row + 1) * dim; i++) square += (codes.data[i] as number) ** 2;
      this.longest = Math.max(this.longest, ((codeScale.data[row] as number) * Math.sqrt(square) + error) * (1 + 2 ** -20) + error);
    }
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
