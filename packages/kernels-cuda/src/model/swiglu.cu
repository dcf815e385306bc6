// model/swiglu: out = silu(gate) up, silu(x) = x / (1 + exp(-x)).
//
// Components are independent, so tokens and their vectors are one stretch: a thread takes four neighbours by loads and a
// store of 16 bytes. All f32: an exponential that overflows makes -0 of a far gate, NaN of -Inf, as stated. Bound by memory:
// 12 bytes beside some 20 instructions a component, a third of what an H200 issues at 4.8 TB/s.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 256;

__device__ float gated(float gate, float up) { return gate / (1 + expf(-gate)) * up; }

__global__ void __launch_bounds__(kThreads) gate_all(model_swiglu_params p, bool whole) {
  const int64_t first = 4 * (int64_t(blockIdx.x) * kThreads + threadIdx.x), end = p.tokens * p.dim;
  if (whole && first + 4 <= end) {
    const float4 g = *reinterpret_cast<const float4*>(p.gate + first), u = *reinterpret_cast<const float4*>(p.up + first);
    *reinterpret_cast<float4*>(p.out + first) = make_float4(gated(g.x, u.x), gated(g.y, u.y), gated(g.z, u.z), gated(g.w, u.w));
    return;
  }
  for (int64_t i = first; i < least(first + 4, end); i++) p.out[i] = gated(p.gate[i], p.up[i]);
}

int64_t blocks_of(const model_swiglu_params& p) { return ceil_div(p.tokens * p.dim, 4 * kThreads); }

}  // namespace

void model_swiglu_plan(const model_swiglu_params& p, const Device&, KernelPlan& plan) {
  plan.name = "vectors";
  if (blocks_of(p) > kLargestGrid) plan.refusal = "more components than a grid has blocks for";
}

cudaError_t model_swiglu_run(const model_swiglu_params& p, const Run& run) {
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(p.gate) | reinterpret_cast<uintptr_t>(p.up) | reinterpret_cast<uintptr_t>(p.out);
  return launch(gate_all, blocks_of(p), kThreads, 0, run.stream, p, addresses % 16 == 0);
}

}  // namespace hotset
