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
 * Writes the code of a finite `row [dim]` at `at` of `codes`: u = scale * code + what is lost, where u is the row, under
 * cos the row at length 1 (a row of zeros stays 0).
 */
export function encodeRow(metric: Metric, row: Float64Array, codes: Int8Array, at: number): RowCode {
  const dim = row.length;
  let square = 0;
  let largest = 0;
  for (let i = 0; i < dim; i++) {
    const value = Math.abs(row[i] as number);
    square += value * value;
    if (value > largest) largest = value;
  }
  const length = Math.sqrt(square);
  const divisor = metric === "cos" && length > 0 ? length : 1;
  const scale = Math.fround(largest / divisor / 127);
  let lost = 0;
  for (let i = 0; i < dim; i++) {
    const value = (row[i] as number) / divisor;
    const code = scale > 0 ? Math.max(-127, Math.min(127, roundEven(value / scale))) : 0;
    codes[at + i] = code;
    // The product of an f32 and an i8 is exact in f64.
    const rest = value - scale * code;
    lost += rest * rest;
  }
  const own = (length / divisor) * (1 + 2 ** -20);
  // Sums of squares in f64 are within dim * 2^-53 <= 2^-37 of the exact ones; each division and difference within 2^-53 of u.
  const error = roundUp(Math.sqrt(lost) * (1 + 2 ** -30) + own * (dim + 8) * 2 ** -52);
  return { scale, error, length: own + error };
}

/** The smallest f32 that is not below, or the one after it. */
export function roundUp(value: number): number {
  const near = Math.fround(value);
  return near >= value ? near : Math.fround(near * (1 + 2 ** -23) + 2 ** -149);
}

/** Below 2^51 the sum has no room for a fraction: it is rounded to nearest, ties to even. */
const roundEven = (value: number): number => value + 1.5 * 2 ** 52 - 1.5 * 2 ** 52;
