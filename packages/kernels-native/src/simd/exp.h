// exp, tanh and ln: plain operations, so that each instruction set gives nearly the same bits.
#pragma once
#include "simd.h"

namespace hotset {
namespace HOTSET_ISA {

// Within 2 units of the last place for x to 88; 0 below -87.7; NaN stays.
// exp(x) = 2^n exp(r), |r| <= ln(2) / 2; the polynomial is fitted to 1e-8 there (Chebyshev).
static inline f32v exp(f32v x) {
  const f32v magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers
  x = smaller(splat(88.0f), larger(splat(-88.0f), x));
  const f32v biased = add(mul(x, splat(1.44269504f)), magic), n = sub(biased, magic);
  // ln 2 in two parts, so that n times the first is exact.
  const f32v r = madd(n, splat(2.12194440e-4f), madd(n, splat(-0.693359375f), x));
  f32v p = madd(splat(0.0013933652f), r, splat(0.0083631817f));
  p = madd(p, r, splat(0.041666467f));
  p = madd(p, r, splat(0.16666576f));
  p = madd(p, r, splat(0.5f));
  return mul(madd(mul(p, r), r, add(r, splat(1.0f))), power_of_two(biased));
}

static inline float exp(float x) {
  alignas(64) float lanes[kLanes];
  store(lanes, exp(splat(x)));
  return lanes[0];
}

// Relative error of a few units: near 0 an odd polynomial, fitted to 5e-9, else 1 - 2 / (exp(2x) + 1).
static inline f32v tanh(f32v x) {
  const f32v square = mul(x, x);
  f32v p = madd(splat(0.0022928743f), square, splat(-0.008344396f));
  p = madd(p, square, splat(0.021769186f));
  p = madd(p, square, splat(-0.053959314f));
  p = madd(p, square, splat(0.13333304f));
  p = madd(p, square, splat(-0.33333334f));
  const f32v near = madd(mul(p, square), x, x);
  const f32v far = sub(splat(1.0f), div(splat(2.0f), add(exp(add(x, x)), splat(1.0f))));
  return select_inside(x, -0.625f, 0.625f, near, far);
}

// Natural logarithm of a number above 0 in f64, to f32's needs; of anything else NaN.
static inline double ln(double x) {
  if (!(x > 0) || !is_finite(x)) return NAN;
  int64_t bits;
  memcpy(&bits, &x, 8);
  // x = 2^e m, m from about 0.7 to 1.4.
  const int64_t e = (bits - 0x3fe6a09e667f3bcd) >> 52;
  bits -= e << 52;
  double m;
  memcpy(&m, &bits, 8);
  const double f = (m - 1) / (m + 1), square = f * f;
  double sum = 0;
  for (int k = 19; k > 0; k -= 2) sum = sum * square + 1.0 / k;
  return double(e) * 0.69314718055994531 + 2 * f * sum;
}

}  // namespace HOTSET_ISA
}  // namespace hotset
