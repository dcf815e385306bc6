// Blocks of q8_0: an f16 scale and 32 signed bytes.
#pragma once
#include "simd.h"

namespace hotset {
namespace HOTSET_ISA {

// Without alignment of its own: rows begin at any byte.
struct q8 {
  uint8_t scale[2];
  int8_t values[32];
};
static_assert(sizeof(q8) == 34 && alignof(q8) == 1);
constexpr int kQ8 = 32;

// Exact, for single values: exponent and fraction moved into place, then times 2^112 for the bias.
static inline float to_float(const uint8_t* half) {
  uint16_t bits;
  memcpy(&bits, half, 2);
  const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13, sign = uint32_t(bits & 0x8000) << 16;
  float value;
  memcpy(&value, &magnitude, 4);
  value *= 0x1p112f;
  uint32_t out;
  memcpy(&out, &value, 4);
  if ((bits & 0x7c00) == 0x7c00) out = 0x7f800000u | magnitude;
  out |= sign;
  memcpy(&value, &out, 4);
  return value;
}

}  // namespace HOTSET_ISA
}  // namespace hotset
