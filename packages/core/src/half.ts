/** f16 and bf16 as bits: the only place where they become numbers and back. Round to nearest, ties to even. */

import { dtypes } from "./dtype.js";

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

const f64 = new Float64Array(1);
const f64Words = new Uint32Array(f64.buffer);
const highWord = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1 ? 1 : 0;
/** The spacing of binary16 numbers by their exponent bits, and what makes it 1. */
const spacing = Float64Array.from({ length: 31 }, (_, exponent) => 2 ** (Math.max(exponent, 1) - 25));
const perSpacing = spacing.map((step) => 1 / step);

/** The value of 16 IEEE binary16 bits. Exact. */
export function f16ToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction : 1024 + fraction) * (spacing[exponent] as number);
}

/** The binary16 bits nearest to a number; rounds once, from the number's full precision. */
export function numberToF16(value: number): number {
  f64[0] = value;
  const high = f64Words[highWord] as number;
  if (Number.isNaN(value)) return 0x7e00;
  const sign = (high >>> 16) & 0x8000;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(1, ((high >>> 20) & 0x7ff) - 1008);
  // Scaled by a power of two, which is exact; adding 2^52 rounds to whole numbers, ties to even. A carry raises the exponent.
  const significand = magnitude * (perSpacing[exponent] as number) + 2 ** 52 - 2 ** 52;
  return sign | ((exponent << 10) + significand - 1024);
}

/** The value of 16 bfloat16 bits. Exact. */
export function bf16ToNumber(bits: number): number {
  u32[0] = bits << 16;
  return f32[0] as number;
}

/** The bfloat16 bits nearest to a number, by way of f32. */
export function numberToBf16(value: number): number {
  f32[0] = value;
  const bits = u32[0] as number;
  if (Number.isNaN(value)) return 0x7fc0;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Packs numbers as f16 bits. */
export const toF16 = (values: ArrayLike<number>): Uint16Array => packed(values, numberToF16);

/** Packs numbers as bf16 bits. */
export const toBf16 = (values: ArrayLike<number>): Uint16Array => packed(values, numberToBf16);

// Not Uint16Array.from, which makes a list of all values first: out of memory at a few hundred megabytes.
function packed(values: ArrayLike<number>, pack: (value: number) => number): Uint16Array {
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) bits[i] = pack(values[i] as number);
  return bits;
}

/** Each row as 127 / max|x| integers: `values [rows, dim]` becomes i8 and one f32 scale a row. */
export function toI8Rows(values: ArrayLike<number>, dim: number): { data: Int8Array; scale: Float32Array } {
  const rows = dim === 0 ? 0 : Math.floor(values.length / dim);
  const data = new Int8Array(rows * dim);
  const scale = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    let largest = 0;
    for (let i = row * dim; i < (row + 1) * dim; i++) largest = Math.max(largest, Math.abs(values[i] as number));
    const step = Math.fround(largest / 127);
    scale[row] = step;
    for (let i = row * dim; step > 0 && i < (row + 1) * dim; i++)
      data[i] = Math.max(-127, Math.min(127, roundEven((values[i] as number) / step)));
  }
  return { data, scale };
}

/** `values [rows, dim]` as q8_0: blocks of 32 with one f16 scale, max|x| / 127; the last block of a row is filled up with 0. */
export function toQ8Rows(values: ArrayLike<number>, dim: number): Uint8Array {
  const { blockElements, blockBytes } = dtypes.q8_0;
  const blocks = Math.ceil(dim / blockElements);
  const rows = dim === 0 ? 0 : Math.floor(values.length / dim);
  const data = new Uint8Array(rows * blocks * blockBytes);
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const first = row * dim + block * blockElements;
      const end = Math.min(first + blockElements, (row + 1) * dim);
      let largest = 0;
      for (let i = first; i < end; i++) largest = Math.max(largest, Math.abs(values[i] as number));
      const step = largest / 127;
      const at = (row * blocks + block) * blockBytes;
      const scale = numberToF16(step);
      data[at] = scale & 0xff;
      data[at + 1] = scale >> 8;
      for (let i = first; step > 0 && i < end; i++)
        data[at + 2 + i - first] = Math.max(-127, Math.min(127, roundEven((values[i] as number) / step)));
    }
  }
  return data;
}

function roundEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest < 0.5) return floor;
  if (rest > 0.5) return floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}
