// Numbers with the same bits on every host backend: f64 sums, differences and products only, never fused. As
// canonical.ts beside the op's declaration has them.
#pragma once
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

// exp(x) for x from -708 to 0; 0 below.
static inline double canonical_exp(double x) {
  if (!(x >= -708)) return 0;
  constexpr double magic = 6755399441055744;  // 1.5 * 2^52: adding it rounds to whole numbers
  const double n = x * 1.4426950408889634 + magic - magic;
  const double r = x - n * 0.6931471803691238 - n * 1.9082149292705877e-10;
  double p = 1.0 / 6227020800;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 1.0 / 2;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const int64_t bits = (int64_t(n) + 1023) << 52;
  double power;
  memcpy(&power, &bits, 8);
  return p * power;
}

// At least 0, below 1: Philox4x32-10 of (seed, position), 53 bits.
static inline double uniform_at(uint32_t seed, uint32_t position) {
  uint32_t a = position, b = 0, c = 0, d = 0, key_a = seed, key_b = 0;
  for (int round = 0; round < 10; round++) {
    const uint64_t x = uint64_t(a) * 0xd2511f53u, y = uint64_t(c) * 0xcd9e8d57u;
    a = uint32_t(y >> 32) ^ b ^ key_a;
    b = uint32_t(y);
    c = uint32_t(x >> 32) ^ d ^ key_b;
    d = uint32_t(x);
    key_a += 0x9e3779b9u;
    key_b += 0xbb67ae85u;
  }
  return (double(a) * 0x1p21 + double(b >> 11)) * 0x1p-53;
}

}  // namespace HOTSET_ISA
}  // namespace hotset
