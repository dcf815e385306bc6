// Rows of continual attention: sums of exp(logit) and of values so weighted, relative to a whole power of two, so that rows
// are rescaled without rounding and a pair of query and key has the same weight whenever it is met.
#pragma once
#include "../device.h"

namespace hotset {

// Threads of a block, and tokens of a chunk.
constexpr int kContinualThreads = 128;

// Where a stream stands when a token arrives.
struct Turn {
  int64_t slot, held, oldest;
  bool full;
};

static inline __device__ bool turn_of(int64_t steps, int64_t window, Turn& turn) {
  if (steps < 0 || steps >= 2 * window) return false;
  turn.full = steps >= window;
  turn.slot = steps % window;
  turn.held = turn.full ? window : steps + 1;
  turn.oldest = turn.full ? (turn.slot + 1) % window : 0;
  return true;
}

static inline __device__ int32_t next_steps(int64_t steps, int64_t window) { return int32_t(steps + 1 == 2 * window ? window : steps + 1); }

// One order for every pair, so that its weight has the same bits wherever it is computed.
static inline __device__ float row_dot(const float* a, const float* b, int64_t dim) {
  float s[4] = {0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 4 <= dim; i += 4) {
HOTSET_UNROLL
    for (int j = 0; j < 4; j++) s[j] = fmaf(a[i + j], b[i + j], s[j]);
  }
  for (; i < dim; i++) s[0] = fmaf(a[i], b[i], s[0]);
  return (s[0] + s[1]) + (s[2] + s[3]);
}

// exp(logit) = part 2^power; NaN where the logit is not finite.
struct Weight {
  float power, part;
};
static inline __device__ Weight split_exp(float logit) {
  if (!(fabsf(logit) < INFINITY)) return {-4194304.0f, NAN};
  const float power = rintf(fminf(fmaxf(logit * 1.44269504f, -2097152.0f), 2097152.0f));
  const float r = fmaf(power, 2.12194440e-4f, fmaf(power, -0.693359375f, logit));
  // Beyond 2^14 a logit is less exact than r; its weight stays a sound number.
  return {power, expf(fminf(fmaxf(r, -0.36f), 0.36f))};
}

// 2^power, 0 below the smallest normal number.
static inline __device__ float scale_of(float power) { return __uint_as_float(unsigned(int(fminf(fmaxf(power, -127.0f), 127.0f)) + 127) << 23); }

struct RowSum {
  float power, sum;
};
struct RowShared {
  float weights[kContinualThreads], largest[kContinualThreads / 32];
  int odd;
};

// By a block: the softmax of a query over `held` keys, unnormalised, chunk by chunk; `weighted` may be global memory.
static inline __device__ RowSum exact_row(const float* query, const float* keys, const float* values, int64_t held, int64_t dim, float scale, float* weighted, RowShared& shared) {
  const int thread = int(threadIdx.x);
  RowSum row = {-4194304.0f, 0};
  for (int64_t start = 0; start < held; start += kContinualThreads) {
    const int count = int(least(kContinualThreads, held - start));
    Weight weight = {-4194304.0f, 0};
    if (thread < count) weight = split_exp(row_dot(query, keys + (start + thread) * dim, dim) * scale);
    // Its barriers also end the use of the weights before.
    const float top = fmaxf(row.power, block_max<kContinualThreads>(weight.power, shared.largest));
    const float factor = scale_of(row.power - top);
    shared.weights[thread] = weight.part * scale_of(weight.power - top);
    row.power = top;
    __syncthreads();
    row.sum *= factor;
    for (int i = 0; i < count; i++) row.sum += shared.weights[i];
    for (int64_t d = thread; d < dim; d += kContinualThreads) {
      float sum = start ? weighted[d] * factor : 0;
      for (int i = 0; i < count; i++) sum = fmaf(shared.weights[i], values[(start + i) * dim + d], sum);
      weighted[d] = sum;
    }
  }
  return row;
}

// By a block: out = weighted / sum, with NaN for what is not finite; whether all of it was.
static inline __device__ bool divide_row(const float* weighted, float sum, int64_t dim, float* out, RowShared& shared) {
  const int thread = int(threadIdx.x);
  __syncthreads();
  if (thread == 0) shared.odd = 0;
  __syncthreads();
  for (int64_t d = thread; d < dim; d += kContinualThreads) {
    const float value = weighted[d] / sum;
    const bool finite = fabsf(value) < INFINITY;
    out[d] = finite ? value : NAN;
    if (!finite) shared.odd = 1;
  }
  __syncthreads();
  return shared.odd == 0;
}

}  // namespace hotset
