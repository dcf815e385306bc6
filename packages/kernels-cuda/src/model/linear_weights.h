// Weights of model/linear, eight neighbours of a row at a time: as they are stored, then as f32.
#pragma once
#include "../device.h"
#include "../numbers.h"
#include "gen/params.h"

namespace hotset {

struct q8_0 {};

template <class T>
__host__ __device__ int64_t row_bytes(int64_t in_dim) { return in_dim * int64_t(sizeof(T)); }
template <>
inline __host__ __device__ int64_t row_bytes<q8_0>(int64_t in_dim) { return in_dim / 32 * 34; }

template <class T>
struct Eight {
  uint4 words;
  __device__ __forceinline__ void clear() { words = {0, 0, 0, 0}; }
  // From a column that is a multiple of 8; element by element where rows do not start on 16 bytes, or end within eight.
  __device__ __forceinline__ void load(const char* row, int64_t column, int64_t in_dim, bool whole) {
    const uint16_t* const from = reinterpret_cast<const uint16_t*>(row) + column;
    if (whole) {
      words = __ldg(reinterpret_cast<const uint4*>(from));
      return;
    }
    const auto half = [&](int i) { return column + i < in_dim ? unsigned(from[i]) : 0u; };
    words = {half(0) | half(1) << 16, half(2) | half(3) << 16, half(4) | half(5) << 16, half(6) | half(7) << 16};
  }
  __device__ __forceinline__ void values(float (&out)[8]) const { widen<T>(words, out); }
  __device__ __forceinline__ float scale() const { return 1; }
};

template <>
struct Eight<float> {
  float4 low, high;
  __device__ __forceinline__ void clear() { low = high = make_float4(0, 0, 0, 0); }
  __device__ __forceinline__ void load(const char* row, int64_t column, int64_t in_dim, bool whole) {
    const float* const from = reinterpret_cast<const float*>(row) + column;
    if (whole) {
      low = __ldg(reinterpret_cast<const float4*>(from));
      high = __ldg(reinterpret_cast<const float4*>(from) + 1);
      return;
    }
    const auto one = [&](int i) { return column + i < in_dim ? from[i] : 0.0f; };
    low = make_float4(one(0), one(1), one(2), one(3));
    high = make_float4(one(4), one(5), one(6), one(7));
  }
  __device__ __forceinline__ void values(float (&out)[8]) const {
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
  }
  __device__ __forceinline__ float scale() const { return 1; }
};

// A quarter of a block. Blocks start on even addresses where the first is whole: words put together from those on four.
template <>
struct Eight<q8_0> {
  unsigned low, high;
  float step;
  __device__ __forceinline__ void clear() { low = high = 0, step = 0; }
  __device__ __forceinline__ void load(const char* row, int64_t column, int64_t, bool whole) {
    const char* const block = row + column / 32 * 34;
    const char* const from = block + 2 + column % 32;
    if (!whole) {
      const auto byte = [&](int i) { return unsigned(uint8_t(from[i])) << (8 * (i % 4)); };
      low = byte(0) | byte(1) | byte(2) | byte(3);
      high = byte(4) | byte(5) | byte(6) | byte(7);
      step = widen_half_bytes(block);
      return;
    }
    step = widen_halves(*reinterpret_cast<const uint16_t*>(block)).x;
    const unsigned odd = unsigned(reinterpret_cast<uintptr_t>(from) & 2);
    const unsigned* const words = reinterpret_cast<const unsigned*>(from - odd);
    low = __ldg(words);
    high = __ldg(words + 1);
    if (odd == 0) return;
    low = low >> 16 | high << 16;
    high = high >> 16 | unsigned(*reinterpret_cast<const uint16_t*>(words + 2)) << 16;
  }
  __device__ __forceinline__ void values(float (&out)[8]) const {
    widen_word(static_cast<const int8_t*>(nullptr), low, out);
    widen_word(static_cast<const int8_t*>(nullptr), high, out + 4);
  }
  // What all eight are multiplied by.
  __device__ __forceinline__ float scale() const { return step; }
};

// One weight, as f32.
static inline __device__ float weight_at(const model_linear_params& p, int64_t row, int64_t i) {
  switch (p.weight_dtype) {
    case dtype_f32: return static_cast<const float*>(p.weight)[row * p.in_dim + i];
    case dtype_f16: return widen_one(static_cast<const f16*>(p.weight) + row * p.in_dim + i);
    case dtype_bf16: return widen_one(static_cast<const bf16*>(p.weight) + row * p.in_dim + i);
    default: {
      const char* const block = static_cast<const char*>(p.weight) + (row * (p.in_dim / 32) + i / 32) * 34;
      return widen_half_bytes(block) * float(int8_t(block[2 + i % 32]));
    }
  }
}

static inline __device__ void write_result(const model_linear_params& p, int64_t token, int64_t row, float sum) {
  if (p.bias) sum += p.bias[row];
  if (p.residual) sum += p.residual[token * p.out_dim + row];
  p.out[token * p.out_dim + row] = sum;
}

}  // namespace hotset
