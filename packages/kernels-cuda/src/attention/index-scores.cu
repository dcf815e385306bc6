// attention/index-scores: score_g = max over the tokens t of g of sum_j w_j relu(q_j . k_t).
//
// A block of 128 threads takes 128 tokens of a sequence, a thread each, or a granule's where that is more; keys go through shared
// memory 16 components at a time, one row a word further than the last so that threads meet no bank twice, and the queries of
// 8 heads beside them, so that a component is read once for 8 sums in registers. A warp's tokens are joined by granules by
// atomics on keys of their order in shared memory. Plain multiply-adds: bound by them (16 k a token at 64 heads of 128).
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;
constexpr int kHeads = 8;
constexpr int kColumns = 16;
constexpr int kPitch = kColumns + 1;

// Smaller for larger scores, 0 for NaN: the best of a granule is the smallest, and a NaN stays.
constexpr unsigned kNothing = ~0u;
__device__ unsigned key_of(float score) {
  if (!(fabsf(score) < INFINITY)) return 0;
  const unsigned bits = __float_as_uint(score);
  return bits >> 31 ? bits : ~(bits | 0x80000000u);
}
__device__ float score_of(unsigned key) {
  if (key == kNothing) return -INFINITY;
  if (key == 0) return NAN;
  return __uint_as_float(key >> 31 ? key : ~key & 0x7fffffffu);
}

__global__ void __launch_bounds__(kThreads) score_tokens(attention_index_scores_params p, int64_t granules, int64_t each, int64_t blocks, Status* status) {
  __shared__ float keys[kThreads * kPitch];
  __shared__ float queries[kHeads * kColumns];
  __shared__ int64_t slots[kThreads];
  __shared__ unsigned best[kThreads];
  __shared__ int32_t shared_length, bad_queries;
  const int64_t block = blockIdx.x % blocks, b = blockIdx.x / blocks, first = block * each, end = least(granules, first + each);
  const int thread = int(threadIdx.x);
  if (thread == 0) {
    shared_length = read_once(p.lengths + b);
    bad_queries = 0;
  }
  best[thread] = kNothing;
  __syncthreads();
  const int64_t length = shared_length;
  const bool sound = length >= 0 && length <= p.max_pages * p.page_size;
  if (!sound && thread == 0) fault(status, attention_index_scores_port_lengths, b, int32_t(length));
  for (int64_t i = thread; i < p.heads * p.index_dim; i += kThreads)
    if (!(fabsf(p.queries[b * p.heads * p.index_dim + i]) < INFINITY)) bad_queries = 1;
  for (int64_t j = thread; j < p.heads; j += kThreads)
    if (!(fabsf(p.weights[b * p.heads + j]) < INFINITY)) bad_queries = 1;

  const int64_t stop = sound ? least(length, end * p.granularity) : 0;
  for (int64_t base = first * p.granularity; base < stop; base += kThreads) {
    const int64_t token = base + thread, entry = b * p.max_pages + token / p.page_size;
    int64_t slot = -1;
    if (token < stop) {
      const int32_t page = read_once(p.page_table + entry);
      if (page >= 0 && page < p.pages) slot = page * p.page_size + token % p.page_size;
      else fault(status, attention_index_scores_port_page_table, entry, page);
    }
    const float scale = slot < 0 ? 0 : p.index_scale[slot];
    float score = fabsf(scale) < INFINITY ? 0 : NAN;
    __syncthreads();
    slots[thread] = slot;
    for (int64_t j = 0; j < p.heads; j += kHeads) {
      float dots[kHeads] = {};
      for (int64_t column = 0; column < p.index_dim; column += kColumns) {
        __syncthreads();
        for (int i = thread; i < kThreads * kColumns; i += kThreads) {
          const int row = i / kColumns, at = i % kColumns;
          const bool there = slots[row] >= 0 && column + at < p.index_dim;
          keys[row * kPitch + at] = there ? float(p.index_keys[slots[row] * p.index_dim + column + at]) : 0;
        }
        for (int i = thread; i < kHeads * kColumns; i += kThreads) {
          const int64_t head = j + i / kColumns, at = column + i % kColumns;
          queries[i] = head < p.heads && at < p.index_dim ? p.queries[(b * p.heads + head) * p.index_dim + at] : 0;
        }
        __syncthreads();
HOTSET_UNROLL
        for (int at = 0; at < kColumns; at++) {
          const float key = keys[thread * kPitch + at];
HOTSET_UNROLL
          for (int h = 0; h < kHeads; h++) dots[h] = fmaf(queries[h * kColumns + at], key, dots[h]);
        }
      }
HOTSET_UNROLL
      for (int h = 0; h < kHeads; h++) {
        const float x = dots[h] * scale;
        if (j + h < p.heads) score = fmaf(p.weights[b * p.heads + j + h], x < 0 ? 0 : x, score);
      }
    }
    if (slot >= 0) atomicMin(&best[token / p.granularity - first], key_of(bad_queries ? NAN : score));
  }
  __syncthreads();
  for (int64_t g = first + thread; g < end; g += kThreads) p.scores[b * granules + g] = score_of(best[g - first]);
}

int64_t granules_of(const attention_index_scores_params& p) { return p.max_pages * p.page_size / p.granularity; }
int64_t granules_each(const attention_index_scores_params& p) { return most(1, kThreads / p.granularity); }

}  // namespace

void attention_index_scores_plan(const attention_index_scores_params& p, const Device&, KernelPlan& plan) {
  plan.name = "tokens";
  if (p.batch * ceil_div(granules_of(p), granules_each(p)) > kLargestGrid) plan.refusal = "more granules than a grid has blocks for";
}

cudaError_t attention_index_scores_run(const attention_index_scores_params& p, const Run& run) {
  const int64_t granules = granules_of(p), each = granules_each(p), blocks = ceil_div(granules, each);
  return launch(score_tokens, p.batch * blocks, kThreads, 0, run.stream, p, granules, each, blocks, run.status);
}

}  // namespace hotset
