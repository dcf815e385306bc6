// attention/page-stats: mean and deviation, or least and largest, of each component over the tokens of a granule.
//
// A block of 128 threads takes a granule of a KV head that reaches beyond `from`, and each thread a component (rows are loaded
// coalesced), down its tokens in their order: bits do not depend on how tokens came. The deviation is a second pass about the
// mean, over keys that lie in L1; f32 does not cancel there. 64 blocks a KV head stride over what there is to make, which the
// host does not know; at a decode step one of them finds a granule. Bound by the keys' bandwidth.
#include "../device.h"
#include "../launch.h"
#include "../numbers.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;
constexpr int64_t kBlocksOfHead = 64;

template <class T>
__device__ void describe(const attention_page_stats_params& p, int64_t slot, int64_t count) {
  const T* const rows = static_cast<const T*>(p.key_pages) + slot * p.head_dim;
  const float* const scale = sizeof(T) == 1 ? p.key_scale + slot : nullptr;
  float* const out = p.page_stats + slot / p.granularity * 2 * p.head_dim;
  const bool minmax = p.statistics == attention_page_stats_statistics_minmax;
  for (int64_t i = threadIdx.x; i < p.head_dim; i += kThreads) {
    float first = 0, second = 0;
    bool finite = true;
    for (int64_t t = 0; t < count; t++) {
      const float x = widen_one(rows + t * p.head_dim + i) * (scale ? scale[t] : 1.0f);
      finite = finite && fabsf(x) < INFINITY;
      if (minmax) {
        first = t == 0 ? x : fminf(first, x);
        second = t == 0 ? x : fmaxf(second, x);
      } else first += x;
    }
    if (!minmax) {
      first /= float(count);
      for (int64_t t = 0; t < count; t++) {
        const float apart = widen_one(rows + t * p.head_dim + i) * (scale ? scale[t] : 1.0f) - first;
        second = fmaf(apart, apart, second);
      }
      second = sqrtf(second / float(count));
    }
    out[i] = finite ? first : NAN;
    out[p.head_dim + i] = finite ? second : NAN;
  }
}

__global__ void __launch_bounds__(kThreads) describe_granules(attention_page_stats_params p, int64_t blocks, Status* status) {
  __shared__ int32_t shared[3];
  const int64_t head = blockIdx.x / blocks % p.kv_heads, b = blockIdx.x / blocks / p.kv_heads;
  const int64_t most = p.max_pages * p.page_size;
  if (threadIdx.x == 0) {
    shared[0] = read_once(p.lengths + b);
    shared[1] = read_once(p.from + b);
  }
  __syncthreads();
  const int64_t length = shared[0], from = shared[1];
  const bool sound = length >= 0 && length <= most, kept = from >= 0 && from <= most;
  if (threadIdx.x == 0 && !sound) fault(status, attention_page_stats_port_lengths, b, int32_t(length));
  if (threadIdx.x == 0 && !kept) fault(status, attention_page_stats_port_from, b, int32_t(from));
  if (!sound || !kept) return;
  for (int64_t g = from / p.granularity + blockIdx.x % blocks; g * p.granularity < length; g += blocks) {
    const int64_t token = g * p.granularity, entry = b * p.max_pages + token / p.page_size;
    __syncthreads();
    if (threadIdx.x == 0) shared[2] = read_once(p.page_table + entry);
    __syncthreads();
    const int64_t page = shared[2];
    if (page < 0 || page >= p.pages) {
      if (threadIdx.x == 0) fault(status, attention_page_stats_port_page_table, entry, int32_t(page));
      continue;
    }
    const int64_t slot = (page * p.kv_heads + head) * p.page_size + token % p.page_size, held = least(p.granularity, length - token);
    switch (p.key_pages_dtype) {
      case dtype_f32: describe<float>(p, slot, held); break;
      case dtype_f16: describe<f16>(p, slot, held); break;
      case dtype_bf16: describe<bf16>(p, slot, held); break;
      default: describe<int8_t>(p, slot, held);
    }
  }
}

int64_t blocks_of(const attention_page_stats_params& p) { return least(kBlocksOfHead, p.max_pages * p.page_size / p.granularity); }

}  // namespace

void attention_page_stats_plan(const attention_page_stats_params& p, const Device&, KernelPlan& plan) {
  plan.name = "granules";
  if (p.batch * p.kv_heads * blocks_of(p) > kLargestGrid) plan.refusal = "more KV heads than a grid has blocks";
}

cudaError_t attention_page_stats_run(const attention_page_stats_params& p, const Run& run) {
  const int64_t blocks = blocks_of(p);
  return launch(describe_granules, p.batch * p.kv_heads * blocks, kThreads, 0, run.stream, p, blocks, run.status);
}

}  // namespace hotset
