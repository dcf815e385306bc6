// logits/logprob: ln p of a target, entropy, the k best, KL(p || q), with p = softmax(logits), q = softmax(against).
//
// A block of 256 threads takes 4096 logits of a row, 16 a thread: one launch for the largest, one for the sums of exp(x),
// exp(x) x and exp(x) (x - y) relative to the row's largest and for the k best, one that joins a row. A thread adds its 16 in
// f32, threads and blocks are joined in f64, in an order by the size of a row only. Of the threads' largest logits the k-th is a
// floor for the others, so that few have to be sorted (from k = 257 on all are). Bound by memory: 128k logits are 512 KiB,
// read twice, the second time from L2 (up to some 100 rows of an H200's 50 MB); a row alone is 32 blocks.
#include "../launch.h"
#include "../sorted_list.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 256;
constexpr int kEach = 16;
constexpr int64_t kChunk = kThreads * kEach;
// Below this, relative to the largest, a token counts as none in sums of p times something.
constexpr float kFaintest = -87;

using BestList = SortedList<kThreads>;

struct Sums {
  double weight, mean, ratio, other;  // of exp(x), exp(x) x, exp(x) (x - y), exp(y)
};

// In device memory, of each row and chunk.
struct Scratch {
  int64_t chunks;
  float2* largest;  // logit, and of the others
  Sums* sums;
  unsigned long long* best;  // [k] keys

  __host__ __device__ Scratch(const logits_logprob_params& p, char* memory) : chunks(ceil_div(p.vocab, kChunk)) {
    sums = reinterpret_cast<Sums*>(memory);
    largest = reinterpret_cast<float2*>(sums + p.tokens * chunks);
    best = reinterpret_cast<unsigned long long*>(largest + p.tokens * chunks);
  }
  static int64_t bytes(const logits_logprob_params& p) { return p.tokens * ceil_div(p.vocab, kChunk) * (int64_t(sizeof(Sums)) + 8 + 8 * p.k); }
};

// Room for a list of k and four more of each thread, and the place behind it.
__host__ __device__ int capacity_of(int64_t k) { return power_of_two_from(int(k) + 4 * kThreads); }
__device__ BestList list_in(char* shared, int* count, int64_t k) {
  return {reinterpret_cast<unsigned long long*>(shared), count, capacity_of(k), int(k)};
}

// Better ones are smaller: a larger logit, then a lower id. Zeros are equal whatever their sign.
__device__ unsigned long long key_of(float logit, int64_t id) {
  return logit != logit ? kNoKey : (unsigned long long)(~ordered(logit + 0.0f)) << 32 | unsigned(id);
}
__device__ float logit_of(unsigned long long key) { return from_ordered(~unsigned(key >> 32)); }

// Four neighbours of a row; -Inf behind its end.
__device__ __forceinline__ void load_four(const float* row, int64_t at, int64_t end, bool whole, float* out) {
  if (whole && at < end) {
    const float4 four = *reinterpret_cast<const float4*>(row + at);
    out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
    return;
  }
  for (int i = 0; i < 4; i++) out[i] = at + i < end ? row[at + i] : -INFINITY;
}

// Where a thread's four of pass `pass` begin.
__device__ __forceinline__ int64_t place(int64_t chunk, int pass) { return chunk * kChunk + 4 * (pass * kThreads + int64_t(threadIdx.x)); }

__global__ void __launch_bounds__(kThreads) find_largest(logits_logprob_params p, Scratch scratch, bool whole) {
  __shared__ float shared[kThreads / 32];
  const int64_t row = blockIdx.x / scratch.chunks, chunk = blockIdx.x % scratch.chunks;
  float largest[2] = {-INFINITY, -INFINITY};
  for (int which = 0; which < (p.against ? 2 : 1); which++) {
    const float* const logits = (which ? p.against : p.logits) + row * p.vocab;
    float x[kEach];
HOTSET_UNROLL
    for (int pass = 0; pass < kEach / 4; pass++) load_four(logits, place(chunk, pass), p.vocab, whole, x + 4 * pass);
    // NaNs are passed over.
HOTSET_UNROLL
    for (int i = 0; i < kEach; i++) largest[which] = fmaxf(largest[which], x[i]);
    largest[which] = block_max<kThreads>(largest[which], shared);
  }
  if (threadIdx.x == 0) scratch.largest[blockIdx.x] = make_float2(largest[0], largest[1]);
}

// The largest of a row, and of the others; for all threads.
__device__ float2 largest_of(const Scratch& scratch, int64_t row, float* shared) {
  float2 largest = make_float2(-INFINITY, -INFINITY);
  for (int64_t c = threadIdx.x; c < scratch.chunks; c += kThreads) {
    const float2 one = scratch.largest[row * scratch.chunks + c];
    largest = make_float2(fmaxf(largest.x, one.x), fmaxf(largest.y, one.y));
  }
  largest.x = block_max<kThreads>(largest.x, shared);
  largest.y = block_max<kThreads>(largest.y, shared);
  return largest;
}

// Of all threads, for the first; `shared` has room for one a warp.
__device__ Sums block_sums(Sums sums, Sums* shared) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    sums.weight += __shfl_xor_sync(kAllLanes, sums.weight, lanes);
    sums.mean += __shfl_xor_sync(kAllLanes, sums.mean, lanes);
    sums.ratio += __shfl_xor_sync(kAllLanes, sums.ratio, lanes);
    sums.other += __shfl_xor_sync(kAllLanes, sums.other, lanes);
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sums;
  __syncthreads();
  for (int i = 1; i < kThreads / 32 && threadIdx.x == 0; i++) {
    sums.weight += shared[i].weight;
    sums.mean += shared[i].mean;
    sums.ratio += shared[i].ratio;
    sums.other += shared[i].other;
  }
  return sums;
}

__global__ void __launch_bounds__(kThreads) add_up(logits_logprob_params p, Scratch scratch, bool whole) {
  HOTSET_DYNAMIC_SHARED(memory);
  __shared__ float shared[kThreads / 32];
  __shared__ Sums shared_sums[kThreads / 32];
  __shared__ int count;
  const int64_t row = blockIdx.x / scratch.chunks, chunk = blockIdx.x % scratch.chunks;
  const float2 largest = largest_of(scratch, row, shared);
  const float base = largest.x == -INFINITY ? 0 : largest.x, other_base = largest.y == -INFINITY ? 0 : largest.y;
  float x[kEach], weights = 0, means = 0, ratios = 0, others = 0;
HOTSET_UNROLL
  for (int pass = 0; pass < kEach / 4; pass++) {
    load_four(p.logits + row * p.vocab, place(chunk, pass), p.vocab, whole, x + 4 * pass);
    float y[4] = {0, 0, 0, 0};
    if (p.against) load_four(p.against + row * p.vocab, place(chunk, pass), p.vocab, whole, y);
HOTSET_UNROLL
    for (int i = 0; i < 4; i++) {
      const float from = x[4 * pass + i] - base, weight = expf(from);
      weights += weight;
      if (from > kFaintest) means = fmaf(weight, from, means);
      if (!p.against) continue;
      y[i] -= other_base;
      others += expf(y[i]);
      if (from > kFaintest) ratios = fmaf(weight, from - y[i], ratios);
    }
  }
  const Sums sums = block_sums({double(weights), double(means), double(ratios), double(others)}, shared_sums);
  if (threadIdx.x == 0) scratch.sums[blockIdx.x] = sums;
  if (p.k == 0) return;

  const BestList list = list_in(memory, &count, p.k);
  list.start();
  unsigned long long best = kNoKey;
HOTSET_UNROLL
  for (int i = 0; i < kEach; i++) {
    const int64_t id = place(chunk, i / 4) + i % 4;
    const unsigned long long key = id < p.vocab ? key_of(x[i], id) : kNoKey;
    best = key < best ? key : best;
  }
  list.append(best);
  __syncthreads();
  list.sort();
HOTSET_UNROLL
  for (int pass = 0; pass < kEach / 4; pass++) {
    list.make_room(4 * kThreads);
HOTSET_UNROLL
    for (int i = 0; i < 4; i++) {
      const int64_t id = place(chunk, pass) + i;
      const unsigned long long key = id < p.vocab ? key_of(x[4 * pass + i], id) : kNoKey;
      if (key != best) list.append(key);
    }
  }
  __syncthreads();
  list.sort();
  for (int64_t i = threadIdx.x; i < p.k; i += kThreads) scratch.best[blockIdx.x * p.k + i] = i < count ? list.keys[i] : kNoKey;
}

__global__ void __launch_bounds__(kThreads) finish_rows(logits_logprob_params p, Scratch scratch, Status* status) {
  HOTSET_DYNAMIC_SHARED(memory);
  __shared__ float shared[kThreads / 32];
  __shared__ Sums shared_sums[kThreads / 32];
  __shared__ double shared_log;
  __shared__ int count;
  const int64_t row = blockIdx.x, first = row * scratch.chunks;
  const double largest = double(largest_of(scratch, row, shared).x);
  Sums sums = {0, 0, 0, 0};
  for (int64_t c = threadIdx.x; c < scratch.chunks; c += kThreads) {
    const Sums& one = scratch.sums[first + c];
    sums = {sums.weight + one.weight, sums.mean + one.mean, sums.ratio + one.ratio, sums.other + one.other};
  }
  sums = block_sums(sums, shared_sums);
  if (threadIdx.x == 0) {
    // Relative to the largest; NaN where there is no distribution.
    const double log_sum = shared_log = log(sums.weight);
    const int32_t target = read_once(p.targets + row);
    if (target < -1 || target >= p.vocab) fault(status, logits_logprob_port_targets, row, target);
    p.chosen[row] = target >= 0 && target < p.vocab ? float(double(p.logits[row * p.vocab + target]) - largest - log_sum) : 0;
    p.entropy[row] = float(log_sum - sums.mean / sums.weight);
    if (p.kl) p.kl[row] = float(sums.ratio / sums.weight - log_sum + log(sums.other));
  }
  if (p.k == 0) return;
  const BestList list = list_in(memory, &count, p.k);
  list.start();
  for (int64_t i = 0; i < scratch.chunks * p.k; i += kThreads) {
    list.make_room(kThreads);
    if (i + threadIdx.x < scratch.chunks * p.k) list.append(scratch.best[first * p.k + i + threadIdx.x]);
  }
  __syncthreads();
  list.sort();
  for (int64_t i = threadIdx.x; i < p.k; i += kThreads) {
    const bool there = i < count;
    p.ids[row * p.k + i] = there ? int32_t(unsigned(list.keys[i])) : -1;
    p.best[row * p.k + i] = there ? float(double(logit_of(list.keys[i])) - largest - shared_log) : -INFINITY;
  }
}

}  // namespace

void logits_logprob_plan(const logits_logprob_params& p, const Device&, KernelPlan& plan) {
  plan.name = "chunks";
  plan.scratch_bytes = Scratch::bytes(p);
  if (p.tokens * ceil_div(p.vocab, kChunk) > kLargestGrid) plan.refusal = "more rows than a grid has blocks";
}

cudaError_t logits_logprob_run(const logits_logprob_params& p, const Run& run) {
  const Scratch scratch(p, run.scratch);
  const bool whole = (uint64_t(p.vocab) * 4 | reinterpret_cast<uintptr_t>(p.logits) | reinterpret_cast<uintptr_t>(p.against)) % 16 == 0;
  const int64_t shared_bytes = p.k > 0 ? (capacity_of(p.k) + 1) * int64_t(sizeof(unsigned long long)) : 0;
  cudaError_t error = launch(find_largest, p.tokens * scratch.chunks, kThreads, 0, run.stream, p, scratch, whole);
  if (error == cudaSuccess) error = launch(add_up, p.tokens * scratch.chunks, kThreads, shared_bytes, run.stream, p, scratch, whole);
  if (error == cudaSuccess) error = launch(finish_rows, p.tokens, kThreads, shared_bytes, run.stream, p, scratch, run.status);
  return error;
}

}  // namespace hotset
