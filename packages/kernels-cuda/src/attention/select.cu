// attention/select: the granules that score best, as ascending lists; first and last ones forced.
//
// A block of 128 threads a list. Scores become unsigned keys of the same order (0 for a NaN), in the scratch; four rounds of
// a histogram of 8-bit digits in shared memory find the key of the last granule that is listed and how many of its equals
// are; one warp lists them in order, 32 at a time, by votes. The sums of pooled heads are f32 in the heads' order, never
// fused: lists are those of the host. Bound by latency: a thousand granules are eight loads a thread and round.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;

__device__ uint32_t key_of(float score) {
  if (score != score) return 0;
  const uint32_t bits = __float_as_uint(score + 0.0f);
  // -0 equals 0.
  if (bits == 0x80000000u) return 0x80000000u;
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__global__ void __launch_bounds__(kThreads) select_granules(attention_select_params p, uint32_t* all_keys, Status* status) {
  __shared__ unsigned histogram[256];
  __shared__ unsigned digit_found, wanted_left;
  const int64_t row = blockIdx.x, b = row / p.lists;
  const int thread = int(threadIdx.x);
  int32_t* const out = p.selected + row * p.k;
  const int32_t length = read_once(p.lengths + b);
  if (length < 0 || length > p.granules * p.granularity) {
    if (thread == 0 && row % p.lists == 0) fault(status, attention_select_port_lengths, b, length);
    for (int64_t i = thread; i < p.k; i += kThreads) out[i] = -1;
    if (thread == 0) p.counts[row] = 0;
    return;
  }
  const int64_t all = ceil_div(length, p.granularity);
  const int64_t total = least(p.budget ? least(p.budget, p.k) : p.k, all);
  const int64_t last = p.recent ? least(total, all - (length - least(p.recent, length)) / p.granularity) : 0;
  const int64_t first = least(total - last, ceil_div(least(p.sink, length), p.granularity));
  const int64_t end = all - last, wanted = total - first - last;

  uint32_t* const keys = all_keys + row * p.granules;
  const float* const scores = p.scores + (b * p.heads + row % p.lists) * p.granules;
  for (int64_t i = first + thread; i < end && wanted > 0; i += kThreads) {
    float score = scores[i];
    if (p.lists < p.heads)
      for (int64_t h = 1; h < p.heads; h++) score += scores[h * p.granules + i];
    keys[i] = key_of(score);
  }
  uint32_t prefix = 0, mask = 0;
  unsigned left = unsigned(wanted);
  for (int shift = 24; shift >= 0 && wanted > 0; shift -= 8) {
    for (int i = thread; i < 256; i += kThreads) histogram[i] = 0;
    __syncthreads();
    for (int64_t i = first + thread; i < end; i += kThreads)
      if ((keys[i] & mask) == prefix) atomicAdd(&histogram[keys[i] >> shift & 255], 1u);
    __syncthreads();
    if (thread == 0) {
      unsigned digit = 255;
      for (; histogram[digit] < left; digit--) left -= histogram[digit];
      digit_found = digit;
      wanted_left = left;
    }
    __syncthreads();
    left = wanted_left;
    prefix |= digit_found << shift;
    mask |= 255u << shift;
    __syncthreads();
  }
  for (int64_t i = thread; i < first; i += kThreads) out[i] = int32_t(i);
  for (int64_t i = thread; i < last; i += kThreads) out[first + wanted + i] = int32_t(end + i);
  for (int64_t i = total + thread; i < p.k; i += kThreads) out[i] = -1;
  if (thread == 0) p.counts[row] = uint32_t(total);
  if (thread >= 32 || wanted == 0) return;
  int64_t at = first;
  const unsigned before = (1u << thread) - 1;
  for (int64_t base = first; base < end; base += 32) {
    const uint32_t key = base + thread < end ? keys[base + thread] : 0;
    const bool there = base + thread < end;
    const unsigned equals = __ballot_sync(kAllLanes, there && key == prefix);
    const bool listed = there && (key > prefix || (key == prefix && unsigned(__popc(equals & before)) < left));
    const unsigned votes = __ballot_sync(kAllLanes, listed);
    if (listed) out[at + __popc(votes & before)] = int32_t(base + thread);
    at += __popc(votes);
    const unsigned used = unsigned(__popc(equals));
    left -= used < left ? used : left;
  }
}

}  // namespace

void attention_select_plan(const attention_select_params& p, const Device&, KernelPlan& plan) {
  plan.name = "radix";
  plan.scratch_bytes = p.batch * p.lists * p.granules * 4;
  if (p.batch * p.lists > kLargestGrid) plan.refusal = "more lists than a grid has blocks";
}

cudaError_t attention_select_run(const attention_select_params& p, const Run& run) {
  return launch(select_granules, p.batch * p.lists, kThreads, 0, run.stream, p, reinterpret_cast<uint32_t*>(run.scratch), run.status);
}

}  // namespace hotset
