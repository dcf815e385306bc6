/** i8 codes of rows, each with a rigorous bound of what it loses. */
import type { Metric } from "../scan/reference.js";

export interface RowCode {
  /** f32: what the code is multiplied by. */
  readonly scale: number;
  /** f32, at least |u - scale * code|: Euclidean, all roundings included. */
  readonly error: number;
  /** At least |u| and |scale * code|. */
  readonly length: number;
}

/**
 * Writes the code of a finite `row [dim]` at `at` of `codes`: u = scale * code + what is lost, where u is the row less
 * `centre [dim]`; under cos the row at length 1 (a row of zeros stays 0) less the centre.
 */
export function encodeRow(metric: Metric, row: Float64Array, centre: Float32Array, codes: Int8Array, at: number): RowCode {
  const dim = row.length;
  const own = lengthOf(row);
  const divisor = metric === "cos" && own > 0 ? own : 1;
  let largest = 0;
  let square = 0;
  for (let i = 0; i < dim; i++) {
    const value = Math.abs((row[i] as number) / divisor - (centre[i] as number));
    square += value * value;
    if (value > largest) largest = value;
  }
  const scale = Math.fround(largest / 127);
  let lost = 0;
  for (let i = 0; i < dim; i++) {
    const value = (row[i] as number) / divisor - (centre[i] as number);
    const code = scale > 0 ? Math.max(-127, Math.min(127, roundEven(value / scale))) : 0;
    codes[at + i] = code;
    // The product of an f32 and an i8 is exact in f64.
    const rest = value - scale * code;
    lost += rest * rest;
  }
  const length = Math.sqrt(square) * (1 + 2 ** -20);
  // Sums of squares in f64 are within dim * 2^-53 <= 2^-37 of the exact ones; each division is within 2^-53 of the row, each
  // difference within 2^-53 of u.
  const error = roundUp(Math.sqrt(lost) * (1 + 2 ** -30) + (own / divisor + length) * (dim + 8) * 2 ** -52);
  return { scale, error, length: length + error };
}

/**
 * The mean of `count` rows, in f32, as `encodeRow` sees them before the centre is taken off. Rows longer than four times the
 * median are left out: one of a thousand times the length would move it away from all others.
 */
export function meanOf(metric: Metric, count: number, dim: number, read: (row: number) => Float64Array): Float32Array {
  const lengths = Float64Array.from({ length: count }, (_, r) => lengthOf(read(r)));
  const longest = 4 * (lengths.slice().sort()[count >> 1] as number);
  const sums = new Float64Array(dim);
  let counted = 0;
  for (let r = 0; r < count; r++) {
    const own = lengths[r] as number;
    if (own > longest) continue;
    counted++;
    const row = read(r);
    const divisor = metric === "cos" && own > 0 ? own : 1;
    for (let i = 0; i < dim; i++) sums[i] = (sums[i] as number) + (row[i] as number) / divisor;
  }
  return Float32Array.from(sums, (sum) => sum / counted);
}

/** Euclidean, in f64. */
export function lengthOf(row: ArrayLike<number>): number {
  let square = 0;
  for (let i = 0; i < row.length; i++) square += (row[i] as number) ** 2;
  return Math.sqrt(square);
}

/** The smallest f32 that is not below, or the one after it. */
export function roundUp(value: number): number {
  const near = Math.fround(value);
  return near >= value ? near : Math.fround(near * (1 + 2 ** -23) + 2 ** -149);
}

/** Below 2^51 the sum has no room for a fraction: it is rounded to nearest, ties to even. */
const roundEven = (value: number): number => value + 1.5 * 2 ** 52 - 1.5 * 2 ** 52;
