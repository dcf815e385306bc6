// What kernels share: faults, reductions, arithmetic of sizes.
#pragma once
#include "kernel.h"
#include "runtime.h"

namespace hotset {

constexpr unsigned kAllLanes = 0xffffffffu;

static inline __host__ __device__ int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline __host__ __device__ int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline __host__ __device__ int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline __host__ __device__ int64_t round_up(int64_t value, int64_t to) { return ceil_div(value, to) * to; }

// The smallest that is no less.
static inline __host__ __device__ int power_of_two_from(int value) {
  int power = 1;
  while (power < value) power *= 2;
  return power;
}

// Keeps the lowest index of a port that was bad.
static inline __device__ void fault(Status* status, int port, int64_t index, int32_t value) {
  atomicMin(&status->first[port], (unsigned long long)(index) << 32 | (unsigned long long)(uint32_t(value)));
}

// Exactly one load, so that what was compared is what is used, whoever writes meanwhile.
static inline __device__ int32_t read_once(const int32_t* at) { return *static_cast<const volatile int32_t*>(at); }

static inline __device__ float warp_max(float value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, lanes));
  return value;
}

// The largest value of a block, for all its threads; NaNs are left out. `shared` has room for a float a warp.
template <int Threads>
__device__ float block_max(float value, float* shared) {
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  for (int i = 0; i < Threads / 32; i++) value = fmaxf(value, shared[i]);
  return value;
}

}  // namespace hotset
