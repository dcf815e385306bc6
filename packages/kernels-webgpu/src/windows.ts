/** Tensors larger than one binding: windows of whole rows, each from a multiple of 256 bytes on. */
import { bindingAlign } from "./flags.js";
import type { Range } from "./program.js";

export interface Window {
  readonly first: number;
  readonly count: number;
}

/** Rows of which every window starts on 256 bytes in all tensors, given the bytes of a row in each. */
export const alignedRows = (rowBytes: readonly number[]): number =>
  Math.max(...rowBytes.map((bytes) => bindingAlign / greatestDivisor(bindingAlign, bytes)));

/** Rows of a window, at most: all of them, or as many as one binding holds; 0 where it does not hold the fewest. */
export function windowRows(count: number, rowBytes: readonly number[], limit: number): number {
  const largest = Math.max(...rowBytes);
  if (largest * count <= limit) return Math.max(1, count);
  const align = alignedRows(rowBytes);
  return Math.floor(limit / largest / align) * align;
}

/** Rows 0 to count - 1 in windows of at most `size`. */
export const windowsOf = (count: number, size: number): Window[] =>
  Array.from({ length: Math.ceil(count / size) }, (_, i) => ({ first: i * size, count: Math.min(size, count - i * size) }));

export const rangeOf = ({ first, count }: Window, rowBytes: number): Range => ({ offset: first * rowBytes, bytes: count * rowBytes });

/** Why there is no kernel: rows that no binding holds. */
export const tooLong = (what: string, rowBytes: number, limit: number): string =>
  `${what} takes ${rowBytes} bytes a row, too many for bindings of this device (${limit})`;

export function greatestDivisor(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y) [x, y] = [y, x % y];
  return x;
}
