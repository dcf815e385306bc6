// Tensor cores: a 16 x 16 tile of 16-bit values times a 16 x 8 one, added to f32 sums (mma.sync, compute capability 8.0
// and later). Lane l of a warp, with g = l / 4 and t = l % 4, holds pairs of neighbours along the inner dimension:
// a[0..3] rows g, g + 8, g, g + 8 at 2t, 2t, 2t + 8, 2t + 8; b[0..1] column g at 2t, 2t + 8; sums at rows g, g, g + 8,
// g + 8, columns 2t, 2t + 1, 2t, 2t + 1. multiply_tf32 has 8 instead of 16 along the inner dimension, of f32 with 11 bits:
// a[0..3] rows g, g + 8, g, g + 8 at t, t, t + 4, t + 4; b[0..1] column g at t, t + 4; sums as before.
#pragma once
#include "numbers.h"

namespace hotset {

// Rounded to the nearest, ties to even.
static inline __device__ uint16_t to_bf16(float value) {
  const unsigned bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline __device__ float from_bf16(uint16_t bits) { return __uint_as_float(unsigned(bits) << 16); }
static inline __device__ float from_f16(uint16_t bits) { return widen_halves(bits).x; }

#ifdef HOTSET_CUDA_EMULATED
inline uint16_t to_f16(float value) {
  const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000;
  const float size = fabsf(value);
  if (size != size) return 0x7e00;
  if (size >= 65520.0f) return uint16_t(sign | 0x7c00);
  // Adding this leaves the bits that a half has, rounded as the processor rounds.
  if (size < 0x1p-14f) return uint16_t(sign | (__float_as_uint(size + 0.5f) - 0x3f000000u));
  const unsigned rest = (bits & 0x7fffffffu) + 0xfff + (bits >> 13 & 1);
  return uint16_t(sign | (rest - 0x38000000u) >> 13);
}

template <class T>
float pair_value(unsigned word, int place);
template <>
inline float pair_value<f16>(unsigned word, int place) { return from_f16(uint16_t(word >> (16 * place))); }
template <>
inline float pair_value<bf16>(unsigned word, int place) { return from_bf16(uint16_t(word >> (16 * place))); }

template <class T>
void multiply_tile(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  emulated::Slot mine;
  unsigned words[8] = {a[0], a[1], a[2], a[3], b[0], b[1], 0, 0};
  memcpy(mine.words, words, sizeof words);
  const emulated::Slot* const slots = emulated::exchange(__LINE__, mine);
  const int group = emulated::thread->lane / 4, place = emulated::thread->lane % 4;
  const auto word = [&](int lane, int i) { return unsigned(slots[lane].words[i / 2] >> (32 * (i % 2))); };
  for (int k = 0; k < 16; k++) {
    const int from = k % 8 / 2, half = k / 8;
    float column[2];
    for (int c = 0; c < 2; c++) column[c] = pair_value<T>(word((2 * place + c) * 4 + from, 4 + half), k % 2);
    for (int r = 0; r < 2; r++) {
      const float row = pair_value<T>(word(group * 4 + from, r + 2 * half), k % 2);
      for (int c = 0; c < 2; c++) sums[2 * r + c] += row * column[c];
    }
  }
}

inline void multiply_tf32(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  emulated::Slot mine;
  unsigned words[8] = {a[0], a[1], a[2], a[3], b[0], b[1], 0, 0};
  memcpy(mine.words, words, sizeof words);
  const emulated::Slot* const slots = emulated::exchange(__LINE__, mine);
  const int group = emulated::thread->lane / 4, place = emulated::thread->lane % 4;
  const auto value = [&](int lane, int i) { return __uint_as_float(unsigned(slots[lane].words[i / 2] >> (32 * (i % 2))) & 0xffffe000u); };
  for (int k = 0; k < 8; k++)
    for (int r = 0; r < 2; r++)
      for (int c = 0; c < 2; c++) sums[2 * r + c] += value(group * 4 + k % 4, r + k / 4 * 2) * value((2 * place + c) * 4 + k % 4, 4 + k / 4);
}

// To 11 bits, the nearest, halves away from zero.
inline unsigned to_tf32(float value) {
  const unsigned bits = __float_as_uint(value);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}
#else
static inline __device__ uint16_t to_f16(float value) { return __half_as_ushort(__float2half_rn(value)); }

template <class T>
__device__ __forceinline__ void multiply_tile(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
template <>
__device__ __forceinline__ void multiply_tile<f16>(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void multiply_tile<bf16>(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void multiply_tf32(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ unsigned to_tf32(float value) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}
#endif

// An f32 in two parts for multiply_tf32, which reads 11 bits of each: the second has at most 12, so that 2^-23 of the value
// is lost at most. What is not finite has parts that make NaNs: kernels compute anew what then is not finite.
static __device__ __forceinline__ void split_tf32(float value, unsigned& high, unsigned& low) {
  high = to_tf32(value);
  low = __float_as_uint(value - __uint_as_float(high));
}

}  // namespace hotset
