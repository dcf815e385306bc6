// One vocabulary for all instruction sets. Kernels are written on it once and compiled per set, each in its own
// namespace and object library (CMakeLists.txt), with nothing shared that is inline: the linker must not be able
// to merge an AVX-512 body into the baseline.
//
// f32v   kLanes floats           i16v, i32v   integers of the same width
// madd(a, b, c) = a * b + c, fused where the set has it.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

namespace hotset {
namespace HOTSET_ISA {

struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};

// Not std::isnan and friends: those are inline functions with one name for all sets.
static inline bool is_nan(double x) { return x != x; }
static inline bool is_finite(double x) { return __builtin_fabs(x) <= 1.7976931348623157e308; }
static inline float magnitude(float x) { return __builtin_fabsf(x); }

}  // namespace HOTSET_ISA
}  // namespace hotset

#if defined(HOTSET_ISA_AVX512)
#include "avx512.h"
#elif defined(HOTSET_ISA_AVX2)
#include "avx2.h"
#elif defined(HOTSET_ISA_SSE2)
#include "sse2.h"
#elif defined(HOTSET_ISA_NEON)
#include "neon.h"
#else
#error "compile with -DHOTSET_ISA=<set> and -DHOTSET_ISA_<SET>"
#endif

namespace hotset {
namespace HOTSET_ISA {

// Keeps what was loaded in its register: GCC would load it again for each use, and a core runs out of loads first.
static inline f32v held(f32v a) {
#if defined(__GNUC__) && defined(HOTSET_ISA_NEON)
  asm("" : "+w"(a.v));
#elif defined(__GNUC__) && defined(HOTSET_ISA_AVX512)
  asm("" : "+v"(a.v));
#elif defined(__GNUC__)
  asm("" : "+x"(a.v));
#endif
  return a;
}

}  // namespace HOTSET_ISA
}  // namespace hotset
