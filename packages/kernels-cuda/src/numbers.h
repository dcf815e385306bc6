// Stored numbers in 16-byte vectors, widened to f32: exactly, whatever the type.
#pragma once
#include <cstdint>

#include "runtime.h"
#ifndef HOTSET_CUDA_EMULATED
#include <cuda_fp16.h>
#endif

namespace hotset {

struct f16 { uint16_t bits; };
struct bf16 { uint16_t bits; };

// Elements of 16 bytes.
template <class T>
constexpr int kVector = 16 / int(sizeof(T));

#ifdef HOTSET_CUDA_EMULATED
inline float2 widen_halves(unsigned word) {
  float out[2];
  for (int i = 0; i < 2; i++) {
    const unsigned half = word >> (16 * i) & 0xffff, sign = (half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) out[i] = __uint_as_float(sign | 0x7f800000 | rest << 13);
    else if (rest < 0x400) out[i] = __uint_as_float(sign | __float_as_uint(float(rest) * 0x1p-24f));
    else out[i] = __uint_as_float(sign | ((rest << 13) + 0x38000000));
  }
  return {out[0], out[1]};
}
#else
static __device__ __forceinline__ float2 widen_halves(unsigned word) { return __half22float2(*reinterpret_cast<const __half2*>(&word)); }
#endif

static __device__ __forceinline__ void widen_word(const float*, unsigned word, float* out) { out[0] = __uint_as_float(word); }
static __device__ __forceinline__ void widen_word(const f16*, unsigned word, float* out) {
  const float2 both = widen_halves(word);
  out[0] = both.x;
  out[1] = both.y;
}
static __device__ __forceinline__ void widen_word(const bf16*, unsigned word, float* out) {
  out[0] = __uint_as_float(word << 16);
  out[1] = __uint_as_float(word & 0xffff0000u);
}
static __device__ __forceinline__ void widen_word(const int8_t*, unsigned word, float* out) {
HOTSET_UNROLL
  for (int i = 0; i < 4; i++) out[i] = float(int8_t(word >> (8 * i)));
}

template <class T>
__device__ __forceinline__ void widen(const uint4& vector, float (&out)[kVector<T>]) {
  constexpr int each = kVector<T> / 4;
  widen_word(static_cast<const T*>(nullptr), vector.x, out);
  widen_word(static_cast<const T*>(nullptr), vector.y, out + each);
  widen_word(static_cast<const T*>(nullptr), vector.z, out + 2 * each);
  widen_word(static_cast<const T*>(nullptr), vector.w, out + 3 * each);
}

// A half at any address.
static __device__ __forceinline__ float widen_half_bytes(const void* at) {
  const uint8_t* const bytes = static_cast<const uint8_t*>(at);
  return widen_halves(unsigned(bytes[0]) | unsigned(bytes[1]) << 8).x;
}

static __device__ __forceinline__ float widen_one(const float* at) { return *at; }
static __device__ __forceinline__ float widen_one(const f16* at) { return widen_halves(at->bits).x; }
static __device__ __forceinline__ float widen_one(const bf16* at) { return __uint_as_float(unsigned(at->bits) << 16); }
static __device__ __forceinline__ float widen_one(const int8_t* at) { return float(*at); }

}  // namespace hotset
