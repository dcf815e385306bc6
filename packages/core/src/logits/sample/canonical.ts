/**
 * Numbers that every backend computes with the same bits: f64 sums, differences, products and quotients only, never fused.
 * The kernels of other backends follow these lines.
 */

// ln 2 in two parts, so that n times the first is exact.
const ln2High = 0.6931471803691238;
const ln2Low = 1.9082149292705877e-10;
const magic = 6755399441055744;

/** exp(x) for x from -708 to 0, within 2 units of the last place; 0 below. */
export function canonicalExp(x: number): number {
  if (!(x >= -708)) return 0;
  // 1.5 * 2^52: adding it rounds to whole numbers.
  const n = x * Math.LOG2E + magic - magic;
  const r = x - n * ln2High - n * ln2Low;
  let p = 1 / 6227020800;
  for (const divisor of factorials) p = p * r + divisor;
  return p * 2 ** n;
}

// 1 / 12! to 1 / 0!: the series ends below 2^-53 for |r| <= ln(2) / 2.
const factorials = [
  1 / 479001600,
  1 / 39916800,
  1 / 3628800,
  1 / 362880,
  1 / 40320,
  1 / 5040,
  1 / 720,
  1 / 120,
  1 / 24,
  1 / 6,
  1 / 2,
  1,
  1,
];

/** A number at least 0 and below 1, with 53 bits, of a seed and a position: Philox4x32-10 (Salmon et al., SC 2011). */
export function uniformAt(seed: number, position: number): number {
  let [a, b, c, d] = [position >>> 0, 0, 0, 0];
  let [keyA, keyB] = [seed >>> 0, 0];
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = product(a, 0xd2511f53);
    const [high1, low1] = product(c, 0xcd9e8d57);
    [a, b, c, d] = [(high1 ^ b ^ keyA) >>> 0, low1, (high0 ^ d ^ keyB) >>> 0, low0];
    keyA = (keyA + 0x9e3779b9) >>> 0;
    keyB = (keyB + 0xbb67ae85) >>> 0;
  }
  return (a * 2 ** 21 + (b >>> 11)) / 2 ** 53;
}

/** The high and low words of a product of two unsigned words. */
function product(x: number, y: number): [number, number] {
  const [xl, xh, yl, yh] = [x & 0xffff, x >>> 16, y & 0xffff, y >>> 16];
  const low = xl * yl;
  const middle = xh * yl + (low >>> 16);
  const other = xl * yh + (middle % 65536);
  return [(xh * yh + Math.floor(middle / 65536) + Math.floor(other / 65536)) >>> 0, Math.imul(x, y) >>> 0];
}
