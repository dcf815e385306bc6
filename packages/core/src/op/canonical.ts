/**
 * exp for x of at most 0, from + - x only: every host backend has the same steps, so that all draw the same tokens and
 * choose the same experts. Within 2 units of the last place of f64; 0 below -708.
 */
export function canonicalExp(x: number): number {
  if (!(x >= -708)) return 0;
  // Adding 1.5 * 2^52 rounds to whole numbers.
  const n = x * log2e + magic - magic;
  // ln 2 in two parts, so that n times the first is exact.
  const r = x - n * ln2High - n * ln2Low;
  let p = factors[0] as number;
  for (let i = 1; i < factors.length; i++) p = p * r + (factors[i] as number);
  return p * powerOfTwo(n);
}

const log2e = Math.LOG2E;
const magic = 6755399441055744;
const ln2High = 0.6931471803691238;
const ln2Low = 1.9082149292705877e-10;

/** 1 / 13! down to 1 / 0!: |r| is at most ln(2) / 2, where the next term is below 1e-17. */
const factors: readonly number[] = [
  1.6059043836821613e-10, 2.08767569878681e-9, 2.505210838544172e-8, 2.755731922398589e-7, 2.7557319223985893e-6, 2.48015873015873e-5,
  1.984126984126984e-4, 1.3888888888888889e-3, 8.333333333333333e-3, 4.1666666666666664e-2, 1.6666666666666666e-1, 0.5, 1, 1,
];

/** Exact, by squaring: engines need not agree on powers. n is a whole number from -1021 to 0. */
function powerOfTwo(n: number): number {
  let value = 1;
  let factor = 0.5;
  for (let rest = -n; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) value *= factor;
    factor *= factor;
  }
  return value;
}
