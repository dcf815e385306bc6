// moe/align: assignments in the order of their experts, each expert's filled up to whole blocks.
//
// One block counts the experts in shared memory, where the order of additions is no matter, and lays them out; then a block
// an expert walks over the ids, 128 at a time, and puts its own in place by ballots, in rising order. Every expert reads all
// ids, from L2: 2048 tokens of 8 by 128 experts are 8 MB, a few microseconds.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;

// Scratch: where each expert's rows start [experts], checked ids [tokens * topK].
__global__ void __launch_bounds__(kThreads) lay_out(moe_align_params p, int32_t* starts, int32_t* ids, Status* status) {
  HOTSET_DYNAMIC_SHARED(memory);
  int* const counts = reinterpret_cast<int*>(memory);
  __shared__ int64_t total;
  const int64_t size = p.block_size, blocks = ceil_div(p.capacity, size);
  for (int64_t e = threadIdx.x; e < p.experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < p.tokens * p.top_k; i += kThreads) {
    const int32_t id = read_once(p.ids + i);
    const bool there = id >= 0 && id < p.experts;
    if (there) atomicAdd(&counts[id], 1);
    else if (id != -1) fault(status, moe_align_port_ids, i, id);
    ids[i] = there ? id : -1;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int64_t row = 0;
    for (int64_t e = 0; e < p.experts; e++) {
      starts[e] = int32_t(row);
      row += round_up(counts[e], size);
    }
    total = row;
    *p.total = int32_t(row);
  }
  __syncthreads();
  for (int64_t e = threadIdx.x; e < p.experts; e += kThreads) {
    const int64_t first = starts[e], end = first + round_up(counts[e], size);
    for (int64_t block = first / size; block < end / size; block++) p.block_expert[block] = int32_t(e);
    for (int64_t row = first + counts[e]; row < end; row++) p.sorted[row] = -1;
  }
  for (int64_t block = total / size + threadIdx.x; block < blocks; block += kThreads) p.block_expert[block] = -1;
  for (int64_t row = total + threadIdx.x; row < p.capacity; row += kThreads) p.sorted[row] = -1;
}

__global__ void __launch_bounds__(kThreads) put(moe_align_params p, const int32_t* starts, const int32_t* ids) {
  __shared__ int counts[kThreads / 32];
  const int32_t expert = int32_t(blockIdx.x);
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  int64_t row = starts[expert];
  for (int64_t first = 0; first < p.tokens * p.top_k; first += kThreads) {
    const int64_t i = first + thread;
    const bool own = i < p.tokens * p.top_k && ids[i] == expert;
    const unsigned lanes = __ballot_sync(kAllLanes, own);
    __syncthreads();
    if (lane == 0) counts[warp] = __popc(lanes);
    __syncthreads();
    int64_t at = row + __popc(lanes & ((1u << lane) - 1));
    for (int w = 0; w < kThreads / 32; w++) {
      if (w < warp) at += counts[w];
      row += counts[w];
    }
    if (own) p.sorted[at] = int32_t(i);
  }
}

}  // namespace

void moe_align_plan(const moe_align_params& p, const Device&, KernelPlan& plan) {
  plan.name = "ballots";
  plan.scratch_bytes = 4 * (p.experts + p.tokens * p.top_k);
}

cudaError_t moe_align_run(const moe_align_params& p, const Run& run) {
  int32_t* const starts = reinterpret_cast<int32_t*>(run.scratch);
  int32_t* const ids = starts + p.experts;
  const cudaError_t error = launch(lay_out, 1, kThreads, round_up(4 * p.experts, 16), run.stream, p, starts, ids, run.status);
  if (error != cudaSuccess) return error;
  return launch(put, p.tokens > 0 ? p.experts : 0, kThreads, 0, run.stream, p, static_cast<const int32_t*>(starts), static_cast<const int32_t*>(ids));
}

}  // namespace hotset
