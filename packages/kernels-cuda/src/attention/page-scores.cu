// attention/page-scores: sum_i q_i mean_i + spread |q_i| deviation_i, or sum_i min(q_i, 0) least_i + max(q_i, 0) largest_i.
//
// Either is one dot product of a granule's statistics with a vector that the query gives, which lies in shared memory: [q,
// spread |q|] or [min(q, 0), max(q, 0)]. Heads pooled by their sum share the sum of their vectors; pooled by the largest, each
// has its own in turn, while the block's rows (16 KiB at 128 components) are in L1. A block of 128 threads takes 16 granules
// of a KV head, a warp one at a time, coalesced: 512 blocks at 16384 tokens and 8 KV heads. Bound by bandwidth.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kRows = 4;  // of a warp
constexpr int64_t kBlockGranules = kWarps * kRows;

// What a head's query, or the sum of a group's, is multiplied with the statistics as.
__device__ void prepare(const attention_page_scores_params& p, const float* queries, int64_t count, float* vector) {
  const bool minmax = p.statistics == attention_page_scores_statistics_minmax;
  for (int64_t i = threadIdx.x; i < p.head_dim; i += kThreads) {
    float first = 0, second = 0;
    for (int64_t h = 0; h < count; h++) {
      const float q = queries[h * p.head_dim + i];
      // A NaN is in both.
      first += minmax ? (q > 0 ? 0.0f : q) : q;
      second += minmax ? (q < 0 ? 0.0f : q) : p.spread * fabsf(q);
    }
    vector[i] = first;
    vector[p.head_dim + i] = second;
  }
}

__global__ void __launch_bounds__(kThreads) score_granules(attention_page_scores_params p, int64_t granules, int64_t blocks, Status* status) {
  HOTSET_DYNAMIC_SHARED(memory);
  float* const vector = reinterpret_cast<float*>(memory);
  __shared__ int32_t pages[kBlockGranules];
  __shared__ int32_t shared_length;
  const int64_t block = blockIdx.x % blocks, head = blockIdx.x / blocks % p.kv_heads, b = blockIdx.x / blocks / p.kv_heads;
  const int64_t first = block * kBlockGranules, per_page = p.page_size / p.granularity;
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (thread == 0) shared_length = read_once(p.lengths + b);
  __syncthreads();
  const int64_t length = shared_length;
  const bool sound = length >= 0 && length <= p.max_pages * p.page_size;
  if (!sound && thread == 0) fault(status, attention_page_scores_port_lengths, b, int32_t(length));
  if (thread < kBlockGranules) {
    const int64_t g = first + thread, entry = b * p.max_pages + g / per_page;
    pages[thread] = -1;
    if (sound && g < granules && g * p.granularity < length) {
      const int32_t page = read_once(p.page_table + entry);
      if (page >= 0 && page < p.pages) pages[thread] = page;
      else fault(status, attention_page_scores_port_page_table, entry, page);
    }
  }
  const int64_t group = p.query_heads / p.kv_heads, each = p.pool == attention_page_scores_pool_max ? 1 : group;
  float pooled[kRows];
  for (int64_t h = 0; h < group; h += each) {
    __syncthreads();
    prepare(p, p.queries + (b * p.query_heads + head * group + h) * p.head_dim, each, vector);
    __syncthreads();
HOTSET_UNROLL
    for (int r = 0; r < kRows; r++) {
      const int place = warp * kRows + r;
      const int64_t page = pages[place];
      if (page < 0) continue;
      const float* const row = p.page_stats + ((page * p.kv_heads + head) * per_page + (first + place) % per_page) * 2 * p.head_dim;
      float sum = 0;
      for (int64_t i = lane; i < 2 * p.head_dim; i += 32) sum = fmaf(row[i], vector[i], sum);
      for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
      if (!(fabsf(sum) < INFINITY)) sum = NAN;
      if (h == 0 || sum > pooled[r] || sum != sum) pooled[r] = sum;
    }
  }
  if (lane > 0) return;
  for (int r = 0; r < kRows; r++) {
    const int64_t place = warp * kRows + r;
    if (first + place >= granules) return;
    float* const score = p.scores + (b * p.kv_heads + head) * granules + first + place;
    *score = pages[place] < 0 ? -INFINITY : pooled[r];
  }
}

int64_t granules_of(const attention_page_scores_params& p) { return p.max_pages * p.page_size / p.granularity; }
int64_t shared_bytes(const attention_page_scores_params& p) { return 2 * p.head_dim * int64_t(sizeof(float)); }

}  // namespace

void attention_page_scores_plan(const attention_page_scores_params& p, const Device&, KernelPlan& plan) {
  plan.name = "rows";
  if (p.batch * p.kv_heads * ceil_div(granules_of(p), kBlockGranules) > kLargestGrid) plan.refusal = "more granules than a grid has blocks for";
}

cudaError_t attention_page_scores_run(const attention_page_scores_params& p, const Run& run) {
  const int64_t granules = granules_of(p), blocks = ceil_div(granules, kBlockGranules);
  return launch(score_granules, p.batch * p.kv_heads * blocks, kThreads, shared_bytes(p), run.stream, p, granules, blocks, run.status);
}

}  // namespace hotset
