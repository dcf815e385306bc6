// model/rms-norm: out_i = weight_i x_i / sqrt(mean(x^2) + epsilon).
//
// A block takes a token, with a thread for each 8 components and 32 to 1024 of them, so that one token alone has all its
// loads of 16 bytes under way at once. Squares are added in f32: a thread's own in order, then the lanes' and the warps' in
// one order, by the length of a vector only. The second pass finds the vector in L1, up to some 128 KiB of it. Bound by
// memory: a vector is read and written once; for one token of 4096, by the latency of two loads and a barrier.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kMostThreads = 1024;

__global__ void __launch_bounds__(kMostThreads) normalise(model_rms_norm_params p, bool whole) {
  __shared__ float shared[kMostThreads / 32];
  const float* const x = p.x + blockIdx.x * p.dim;
  float* const out = p.out + blockIdx.x * p.dim;
  const int threads = int(blockDim.x), thread = int(threadIdx.x);
  const int64_t vectors = whole ? p.dim / 4 : 0;
  float sum = 0;
  for (int64_t i = thread; i < vectors; i += threads) {
    const float4 v = reinterpret_cast<const float4*>(x)[i];
    sum = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
  }
  for (int64_t i = 4 * vectors + thread; i < p.dim; i += threads) sum = fmaf(x[i], x[i], sum);
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  if (thread % 32 == 0) shared[thread / 32] = sum;
  __syncthreads();
  sum = 0;
  for (int i = 0; i < threads / 32; i++) sum += shared[i];
  const float scale = 1 / sqrtf(sum / float(p.dim) + p.epsilon);
  for (int64_t i = thread; i < vectors; i += threads) {
    const float4 v = reinterpret_cast<const float4*>(x)[i], w = reinterpret_cast<const float4*>(p.weight)[i];
    reinterpret_cast<float4*>(out)[i] = make_float4(w.x * (v.x * scale), w.y * (v.y * scale), w.z * (v.z * scale), w.w * (v.w * scale));
  }
  for (int64_t i = 4 * vectors + thread; i < p.dim; i += threads) out[i] = p.weight[i] * (x[i] * scale);
}

}  // namespace

void model_rms_norm_plan(const model_rms_norm_params& p, const Device&, KernelPlan& plan) {
  plan.name = "rows";
  if (p.tokens > kLargestGrid) plan.refusal = "more tokens than a grid has blocks";
}

cudaError_t model_rms_norm_run(const model_rms_norm_params& p, const Run& run) {
  const int threads = int(most(32, least(kMostThreads, round_up(ceil_div(p.dim, 8), 32))));
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(p.x) | reinterpret_cast<uintptr_t>(p.weight) | reinterpret_cast<uintptr_t>(p.out);
  return launch(normalise, p.tokens, threads, 0, run.stream, p, (uint64_t(p.dim) * 4 | addresses) % 16 == 0);
}

}  // namespace hotset
