// moe/combine: out[t] = sum_k weights[t][k] rows[t][k], in the order of k.
//
// A block of 128 threads takes 512 components of a token; a thread adds four of them, a warp's loads are one stretch. Bound
// by memory: each row is read once.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;
constexpr int kColumns = 4 * kThreads;

__global__ void __launch_bounds__(kThreads) combine_rows(moe_combine_params p, int64_t tiles) {
  const int64_t t = blockIdx.x / tiles, first = blockIdx.x % tiles * kColumns + threadIdx.x;
  for (int64_t column = first; column < least(p.dim, first + kColumns); column += kThreads) {
    float sum = 0;
    for (int64_t k = 0; k < p.top_k; k++) {
      const float weight = p.weights[t * p.top_k + k];
      if (weight != 0) sum = fmaf(weight, p.rows[(t * p.top_k + k) * p.dim + column], sum);
    }
    p.out[t * p.dim + column] = sum;
  }
}

}  // namespace

void moe_combine_plan(const moe_combine_params& p, const Device&, KernelPlan& plan) {
  plan.name = "rows";
  if (p.tokens * ceil_div(p.dim, kColumns) > kLargestGrid) plan.refusal = "more tokens than a grid has blocks";
}

cudaError_t moe_combine_run(const moe_combine_params& p, const Run& run) {
  const int64_t tiles = ceil_div(p.dim, kColumns);
  return launch(combine_rows, p.tokens * tiles, kThreads, 0, run.stream, p, tiles);
}

}  // namespace hotset
