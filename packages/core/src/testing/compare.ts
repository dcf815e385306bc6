/** Comparing outputs: bit for bit, or within the tolerance the spec gives. docs/tolerances.md explains the formula. */
import { type DType, dtypes, type HostArray } from "../dtype.js";
import { bf16ToNumber, f16ToNumber } from "../half.js";
import { bytesOf } from "../tensor.js";

/** Unit roundoff of the accumulator: kernels sum in f32. */
const accumulator = dtypes.f32.unitRoundoff;
/** Below this, f32 results may be flushed to zero. */
const smallestNormal = 2 ** -126;

/** steps x u(accumulator) x sum of |terms| + u(output) x |value| + what a flush to zero can cost. */
export function toleranceOf(dtype: DType, steps: number, expected: number, magnitude: number): number {
  if (steps === 0) return 0;
  return steps * accumulator * magnitude + dtypes[dtype].unitRoundoff * Math.abs(expected) + (steps + 1) * smallestNormal;
}

const asNumber = (dtype: DType, value: number | bigint): number =>
  dtype === "f16" ? f16ToNumber(Number(value)) : dtype === "bf16" ? bf16ToNumber(Number(value)) : Number(value);

/** The worst element beyond its tolerance, in words; undefined when there is none. Steps of 0 demand equal bits. */
export function difference(
  port: string,
  dtype: DType,
  got: HostArray,
  expected: HostArray,
  steps: number,
  magnitude: Float64Array | undefined,
): string | undefined {
  if (got.length !== expected.length) return `${port} has ${got.length} elements, expected ${expected.length}`;
  if (steps === 0) {
    const at = firstOtherBits(got, expected);
    return at < 0 ? undefined : `${port}[${at}] is ${got[at]}, expected ${expected[at]} (the same bits)`;
  }
  let worst = { at: -1, excess: 0, within: 0 };
  for (let i = 0; i < got.length; i++) {
    const [value, wanted] = [asNumber(dtype, got[i] as number), asNumber(dtype, expected[i] as number)];
    if (Object.is(value, wanted) || value === wanted || (Number.isNaN(value) && Number.isNaN(wanted))) continue;
    const within = toleranceOf(dtype, steps, wanted, magnitude?.[i] ?? Math.abs(wanted));
    const excess = Math.abs(value - wanted) / within;
    if (!(excess <= 1) && !(excess <= worst.excess))
      worst = { at: i, excess: Number.isNaN(excess) ? Number.POSITIVE_INFINITY : excess, within };
  }
  return worst.at < 0
    ? undefined
    : `${port}[${worst.at}] is ${got[worst.at]}, expected ${expected[worst.at]} within ${worst.within.toPrecision(3)} (${worst.excess.toPrecision(3)} times too far)`;
}

/** Index of the first element whose bits differ, or -1. */
export function firstOtherBits(a: HostArray, b: HostArray): number {
  const [x, y] = [bytesOf(a), bytesOf(b)];
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return Math.floor(i / a.BYTES_PER_ELEMENT);
  return -1;
}
