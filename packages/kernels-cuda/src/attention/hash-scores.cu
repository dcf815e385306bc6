// attention/hash-scores: score_g = -min over the tokens of g of sum_h |hash(q_h) xor hash_t|.
//
// A block of 128 threads takes 64 granules of a KV head, whose query hashes it makes in shared memory by votes; a warp has a
// granule at a time, a lane its tokens 32 apart, and the least distance of the lanes is the granule's. Counts are whole numbers:
// the bits are those of the host. Bound by the hashes' bandwidth (16 bytes a token and KV head at 128 bits).
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;
constexpr int64_t kBlockGranules = 64;

__global__ void __launch_bounds__(kThreads) score_hashes(attention_hash_scores_params p, int64_t granules, int64_t blocks, Status* status) {
  HOTSET_DYNAMIC_SHARED(memory);
  uint32_t* const hashes = reinterpret_cast<uint32_t*>(memory);
  __shared__ int32_t shared_length, pages[kBlockGranules];
  const int64_t block = blockIdx.x % blocks, head = blockIdx.x / blocks % p.kv_heads, b = blockIdx.x / blocks / p.kv_heads;
  const int64_t group = p.query_heads / p.kv_heads, words = p.bits / 32;
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (thread == 0) shared_length = read_once(p.lengths + b);
  const float* const queries = p.queries + (b * p.query_heads + head * group) * p.bits;
  for (int64_t i = warp; i < group * words; i += kThreads / 32) {
    const unsigned word = __ballot_sync(kAllLanes, queries[i * 32 + lane] < 0);
    if (lane == 0) hashes[i] = word;
  }
  __syncthreads();
  const int64_t length = shared_length, first = block * kBlockGranules;
  const bool sound = length >= 0 && length <= p.max_pages * p.page_size;
  if (!sound && thread == 0) fault(status, attention_hash_scores_port_lengths, b, int32_t(length));
  if (thread < kBlockGranules) {
    const int64_t token = (first + thread) * p.granularity, entry = b * p.max_pages + token / p.page_size;
    pages[thread] = -1;
    if (sound && first + thread < granules && token < length) {
      const int32_t page = read_once(p.page_table + entry);
      if (page >= 0 && page < p.pages) pages[thread] = page;
      else fault(status, attention_hash_scores_port_page_table, entry, page);
    }
  }
  __syncthreads();
  for (int64_t g = first + warp; g < least(granules, first + kBlockGranules); g += kThreads / 32) {
    float* const score = p.scores + (b * p.kv_heads + head) * granules + g;
    const int64_t token = g * p.granularity, page = pages[g - first];
    if (page < 0) {
      if (lane == 0) *score = -INFINITY;
      continue;
    }
    const uint32_t* const rows = p.hash_pages + ((page * p.kv_heads + head) * p.page_size + token % p.page_size) * words;
    int best = int(group * p.bits);
    for (int64_t t = lane; t < least(p.granularity, length - token); t += 32) {
      int distance = 0;
      for (int64_t w = 0; w < words; w++) {
        const uint32_t key = rows[t * words + w];
        for (int64_t h = 0; h < group; h++) distance += __popc(key ^ hashes[h * words + w]);
      }
      best = distance < best ? distance : best;
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const int other = __shfl_xor_sync(kAllLanes, best, lanes);
      best = other < best ? other : best;
    }
    if (lane == 0) *score = float(-best);
  }
}

int64_t granules_of(const attention_hash_scores_params& p) { return p.max_pages * p.page_size / p.granularity; }
int64_t shared_bytes(const attention_hash_scores_params& p) { return p.query_heads / p.kv_heads * p.bits / 8; }

}  // namespace

void attention_hash_scores_plan(const attention_hash_scores_params& p, const Device& device, KernelPlan& plan) {
  plan.name = "words";
  if (p.batch * p.kv_heads * ceil_div(granules_of(p), kBlockGranules) > kLargestGrid) plan.refusal = "more granules than a grid has blocks for";
  if (shared_bytes(p) + 64 > device.shared_bytes) plan.refusal = "the hashes of a KV head's queries do not fit shared memory";
}

cudaError_t attention_hash_scores_run(const attention_hash_scores_params& p, const Run& run) {
  const int64_t granules = granules_of(p), blocks = ceil_div(granules, kBlockGranules);
  return launch(score_hashes, p.batch * p.kv_heads * blocks, kThreads, shared_bytes(p), run.stream, p, granules, blocks, run.status);
}

}  // namespace hotset
