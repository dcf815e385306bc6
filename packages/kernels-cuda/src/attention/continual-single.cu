// attention/continual-single: the newest key and value go into a stream's ring, and out = sum_t softmax(scale q k)_t v_t,
// lse = ln sum_t exp(scale q k_t) over it.
//
// A block of 128 threads takes a head of a stream: chunks of 128 tokens, a token a thread for the logits and a column a thread for
// the values, with a running power of two between chunks. f32. A second launch counts the steps, since all heads of a stream
// read them. Bound by the latency of a head's loads: a window is short, and its keys and values are read once.
#include "../launch.h"
#include "continual_rows.h"
#include "gen/params.h"

namespace hotset {

namespace {

__global__ void __launch_bounds__(kContinualThreads) attend_window(attention_continual_single_params p, Status* status) {
  __shared__ RowShared shared;
  const int64_t head = blockIdx.x, stream = head / p.heads, dim = p.head_dim;
  const int thread = int(threadIdx.x);
  const int32_t steps = read_once(p.steps + stream);
  float* const out = p.out + head * dim;
  Turn turn;
  if (!turn_of(steps, p.window, turn)) {
    for (int64_t d = thread; d < dim; d += kContinualThreads) out[d] = 0;
    if (thread == 0) {
      p.lse[head] = -INFINITY;
      fault(status, attention_continual_single_port_steps, stream, steps);
    }
    return;
  }
  float* const keys = p.key_ring + head * p.window * dim;
  float* const values = p.value_ring + head * p.window * dim;
  for (int64_t d = thread; d < dim; d += kContinualThreads) {
    keys[turn.slot * dim + d] = p.key[head * dim + d];
    values[turn.slot * dim + d] = p.value[head * dim + d];
  }
  __syncthreads();
  const RowSum row = exact_row(p.query + head * dim, keys, values, turn.held, dim, p.scale, out, shared);
  divide_row(out, row.sum, dim, out, shared);
  if (thread == 0) p.lse[head] = fmaf(row.power, 0.693147181f, logf(row.sum));
}

__global__ void __launch_bounds__(kContinualThreads) count_steps(attention_continual_single_params p) {
  const int64_t stream = int64_t(blockIdx.x) * kContinualThreads + threadIdx.x;
  if (stream >= p.streams) return;
  const int64_t steps = p.steps[stream];
  if (steps >= 0 && steps < 2 * p.window) p.steps[stream] = next_steps(steps, p.window);
}

}  // namespace

void attention_continual_single_plan(const attention_continual_single_params& p, const Device&, KernelPlan& plan) {
  plan.name = "heads";
  if (p.streams * p.heads > kLargestGrid) plan.refusal = "more heads of streams than a grid has blocks";
}

cudaError_t attention_continual_single_run(const attention_continual_single_params& p, const Run& run) {
  const cudaError_t error = launch(attend_window, p.streams * p.heads, kContinualThreads, 0, run.stream, p, run.status);
  if (error != cudaSuccess) return error;
  return launch(count_steps, ceil_div(p.streams, kContinualThreads), kContinualThreads, 0, run.stream, p);
}

}  // namespace hotset
