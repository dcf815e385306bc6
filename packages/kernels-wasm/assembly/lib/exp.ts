// exp, tanh and ln from plain operations. Static methods: see simd.ts.
import { simd } from "./simd";

export class math {
  /**
   * exp within 2 units of the last place for x to 88; 0 below -87.7; NaN stays.
   * exp(x) = 2^n exp(r), |r| <= ln(2) / 2; the polynomial is fitted to 1e-8 there (Chebyshev).
   */
  static exp(x: v128): v128 {
    // 1.5 * 2^23: adding it rounds to whole numbers.
    const magic = f32x4.splat(12582912);
    // The pseudo forms are one instruction each, and keep a NaN that comes first.
    const clamped = f32x4.pmin(f32x4.pmax(x, f32x4.splat(-88)), f32x4.splat(88));
    const biased = f32x4.add(f32x4.mul(clamped, f32x4.splat(1.44269504)), magic);
    const n = f32x4.sub(biased, magic);
    // ln 2 in two parts, so that n times the first is exact.
    const r = simd.madd(n, f32x4.splat(2.1219444e-4), simd.madd(n, f32x4.splat(-0.693359375), clamped));
    let p = simd.madd(f32x4.splat(0.0013933652), r, f32x4.splat(0.0083631817));
    p = simd.madd(p, r, f32x4.splat(0.041666467));
    p = simd.madd(p, r, f32x4.splat(0.16666576));
    p = simd.madd(p, r, f32x4.splat(0.5));
    const power = i32x4.add(i32x4.shl(biased, 23), i32x4.splat(127 << 23));
    return f32x4.mul(simd.madd(f32x4.mul(p, r), r, f32x4.add(r, f32x4.splat(1))), power);
  }

  /** Relative error of a few units: near 0 an odd polynomial, fitted to 5e-9, else 1 - 2 / (exp(2x) + 1). */
  static tanh(x: v128): v128 {
    const square = f32x4.mul(x, x);
    let p = simd.madd(f32x4.splat(0.0022928743), square, f32x4.splat(-0.008344396));
    p = simd.madd(p, square, f32x4.splat(0.021769186));
    p = simd.madd(p, square, f32x4.splat(-0.053959314));
    p = simd.madd(p, square, f32x4.splat(0.13333304));
    p = simd.madd(p, square, f32x4.splat(-0.33333334));
    const near = simd.madd(f32x4.mul(p, square), x, x);
    const one = f32x4.splat(1);
    const far = f32x4.sub(one, f32x4.div(f32x4.splat(2), f32x4.add(math.exp(f32x4.add(x, x)), one)));
    return simd.select_inside(x, -0.625, 0.625, near, far);
  }

  /** Natural logarithm of a number above 0, to f32's needs; of anything else NaN. */
  static ln(x: f64): f64 {
    if (!(x > 0 && x <= f64.MAX_VALUE)) return NaN;
    // x = 2^e m, m from about 0.7 to 1.4.
    const bits = reinterpret<i64>(x);
    const e = (bits - 0x3fe6a09e667f3bcd) >> 52;
    const m = reinterpret<f64>(bits - (e << 52));
    const f = (m - 1) / (m + 1);
    const square = f * f;
    let sum: f64 = 0;
    for (let k = 19; k > 0; k -= 2) sum = sum * square + 1.0 / <f64>k;
    return <f64>e * 0.6931471805599453 + 2 * f * sum;
  }

  /** A vector whose -Inf lanes are 0: what logits are taken relative to. */
  @inline static base(largest: v128): v128 {
    return v128.andnot(largest, f32x4.eq(largest, f32x4.splat(-Infinity)));
  }
}
