// attention/merge: out = sum_p exp(lse_p - lse) out_p, lse = ln sum_p exp(lse_p), row by row.
//
// A block of 128 threads takes a row: the parts' largest lse first, then each thread adds its components of all parts in
// their order, in f32, so the bits depend on nothing but the row. Weights are computed by each thread anew: an
// exponential beside a load of 4 bytes by each of 128 threads, coalesced, which is what bounds the kernel.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) merge_rows(attention_merge_params p) {
  __shared__ float shared[kThreads / 32];
  const int64_t row = blockIdx.x;
  const int thread = int(threadIdx.x);
  float largest = -INFINITY;
  // NaNs are never the largest; they come in through their weights.
  for (int64_t part = thread; part < p.parts; part += kThreads) largest = fmaxf(largest, p.part_lse[part * p.rows + row]);
  largest = block_max<kThreads>(largest, shared);
  const float base = largest == -INFINITY ? 0 : largest;
  for (int64_t column = thread; column < p.value_dim || column == thread; column += kThreads) {
    float joined = 0, sum = 0;
    for (int64_t part = 0; part < p.parts; part++) {
      const float lse = p.part_lse[part * p.rows + row];
      if (lse == -INFINITY) continue;
      const float weight = expf(lse - base);
      sum += weight;
      if (column < p.value_dim) joined = fmaf(weight, p.part_out[(part * p.rows + row) * p.value_dim + column], joined);
    }
    if (column < p.value_dim) p.out[row * p.value_dim + column] = sum == 0 ? 0 : joined / sum;
    if (column == 0) p.lse[row] = sum == 0 ? -INFINITY : base + logf(sum);
  }
}

}  // namespace

void attention_merge_plan(const attention_merge_params& p, const Device&, KernelPlan& plan) {
  plan.name = "rows";
  if (p.rows > kLargestGrid) plan.refusal = "more rows than a grid has blocks";
}

cudaError_t attention_merge_run(const attention_merge_params& p, const Run& run) { return launch(merge_rows, p.rows, kThreads, 0, run.stream, p); }

}  // namespace hotset
