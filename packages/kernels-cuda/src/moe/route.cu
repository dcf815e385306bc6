// moe/route: ids = top-k of z or s + bias, weights = scale s / (sum of the chosen s + 1e-20); s = softmax(z) or sigmoid(z).
//
// A block of 128 threads takes a token, its scores in shared memory; topK rounds of a block's arg-max choose. All f64 in
// the reference's order of steps, without fused products, so that the choice is the CPU's. 128 experts are 128 exponentials and
// a chain of 128 additions: latency bounds it, some microseconds a token, with a token on each of the multiprocessors' blocks.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

__device__ double exponential(double x) {
  if (!(x >= -708)) return 0;
  const double factors[14] = {1.6059043836821613e-10, 2.08767569878681e-9,    2.505210838544172e-8,  2.755731922398589e-7,  2.7557319223985893e-6, 2.48015873015873e-5, 1.984126984126984e-4,
                              1.3888888888888889e-3,  8.333333333333333e-3, 4.1666666666666664e-2, 1.6666666666666666e-1, 0.5,                   1,                   1};
  const double magic = 6755399441055744;
  const double biased = __dadd_rn(__dmul_rn(x, 1.4426950408889634), magic), whole = __dsub_rn(biased, magic);
  const double r = __dsub_rn(__dsub_rn(x, __dmul_rn(whole, 0.6931471803691238)), __dmul_rn(whole, 1.9082149292705877e-10));
  double p = factors[0];
  for (int i = 1; i < 14; i++) p = __dadd_rn(__dmul_rn(p, r), factors[i]);
  uint64_t bits;
  memcpy(&bits, &biased, 8);
  bits = (bits + 1023) << 52;
  double power;
  memcpy(&power, &bits, 8);
  return __dmul_rn(p, power);
}

__device__ double or_least(double value) { return value != value ? -INFINITY : value; }

struct Best {
  double value;
  int at;
};
// The larger, of equals the lower number; what is nowhere has number -1.
__device__ Best better(Best a, Best b) {
  if (b.at < 0) return a;
  if (a.at < 0) return b;
  return b.value > a.value || (b.value == a.value && b.at < a.at) ? b : a;
}

// The best of all threads' candidates, for all threads.
__device__ Best block_best(Best mine, Best* shared) {
  for (int lanes = 16; lanes > 0; lanes /= 2) mine = better(mine, {__shfl_xor_sync(kAllLanes, mine.value, lanes), __shfl_xor_sync(kAllLanes, mine.at, lanes)});
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
  __syncthreads();
  for (int i = 0; i < kWarps; i++) mine = better(mine, shared[i]);
  return mine;
}

__device__ Best best_free(const double* values, const uint8_t* taken, int64_t n, Best* shared) {
  Best mine = {0, -1};
  for (int64_t e = threadIdx.x; e < n; e += kThreads)
    if (!taken[e]) mine = better(mine, {values[e], int(e)});
  return block_best(mine, shared);
}

// Takes the experts of groups that are not kept, and leaves the others free.
__device__ void keep_groups(const moe_route_params& p, const double* values, double* worth, uint8_t* taken, uint8_t* group_taken, Best* shared) {
  const int64_t size = p.experts / p.groups;
  for (int64_t g = threadIdx.x; g < p.groups; g += kThreads) {
    double first = -INFINITY, second = -INFINITY;
    for (int64_t e = g * size; e < (g + 1) * size; e++) {
      const double value = values[e];
      if (value > first) {
        second = first;
        first = value;
      } else if (value > second) {
        second = value;
      }
    }
    worth[g] = p.bias && size > 1 ? or_least(__dadd_rn(first, second)) : first;
    group_taken[g] = 0;
  }
  __syncthreads();
  for (int64_t i = 0; i < p.kept_groups; i++) {
    const Best group = best_free(worth, group_taken, p.groups, shared);
    __syncthreads();
    if (threadIdx.x == 0) group_taken[group.at] = 1;
    __syncthreads();
  }
  for (int64_t e = threadIdx.x; e < p.experts; e += kThreads) taken[e] = !group_taken[e / size];
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) route_token(moe_route_params p) {
  HOTSET_DYNAMIC_SHARED(memory);
  __shared__ Best shared[kWarps];
  __shared__ double total;
  double* const values = reinterpret_cast<double*>(memory);
  double* const s = values + p.experts;
  double* const worth = s + p.experts;
  uint8_t* const taken = reinterpret_cast<uint8_t*>(worth + p.groups);
  uint8_t* const group_taken = taken + p.experts;
  const int64_t t = blockIdx.x;
  Best largest = {0, -1};
  int nan = -1;
  for (int64_t e = threadIdx.x; e < p.experts; e += kThreads) {
    const double logit = double(p.logits[t * p.experts + e]);
    if (logit != logit) nan = int(e);
    values[e] = or_least(logit);
    largest = better(largest, {values[e], int(e)});
    taken[e] = 0;
  }
  largest = block_best(largest, shared);
  nan = block_best({0, nan}, shared).at;
  const bool softmax = p.score == moe_route_score_softmax;
  for (int64_t e = threadIdx.x; e < p.experts; e += kThreads) {
    const double z = values[e];
    const double power = exponential(softmax ? (z == largest.value ? 0 : __dsub_rn(z, largest.value)) : -fabs(z));
    s[e] = softmax ? power : __ddiv_rn(z >= 0 ? 1 : power, __dadd_rn(1, power));
  }
  __syncthreads();
  if (softmax) {
    if (threadIdx.x == 0) {
      double sum = 0;
      for (int64_t e = 0; e < p.experts; e++) sum = __dadd_rn(sum, s[e]);
      total = sum;
    }
    __syncthreads();
    for (int64_t e = threadIdx.x; e < p.experts; e += kThreads) s[e] = __ddiv_rn(s[e], total);
  }
  if (p.bias)
    for (int64_t e = threadIdx.x; e < p.experts; e += kThreads) values[e] = or_least(__dadd_rn(s[e], double(p.bias[e])));
  __syncthreads();
  if (p.groups > 1) keep_groups(p, values, worth, taken, group_taken, shared);
  for (int64_t k = 0; k < p.top_k; k++) {
    const Best chosen = best_free(values, taken, p.experts, shared);
    __syncthreads();
    if (threadIdx.x == 0) {
      taken[chosen.at] = 1;
      p.ids[t * p.top_k + k] = chosen.at;
    }
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  double sum = 0;
  for (int64_t k = 0; k < p.top_k; k++) sum = __dadd_rn(sum, s[p.ids[t * p.top_k + k]]);
  for (int64_t k = 0; k < p.top_k; k++) {
    const double own = s[p.ids[t * p.top_k + k]];
    const double share = p.renormalise ? __ddiv_rn(own, __dadd_rn(sum, 1e-20)) : own;
    p.weights[t * p.top_k + k] = nan >= 0 ? __uint_as_float(0x7fc00000u) : __double2float_rn(__dmul_rn(share, double(p.scale)));
  }
}

}  // namespace

void moe_route_plan(const moe_route_params& p, const Device& device, KernelPlan& plan) {
  plan.name = "block";
  if (p.tokens > kLargestGrid) plan.refusal = "more tokens than a grid has blocks";
  else if (17 * p.experts + 9 * p.groups + 1024 > device.shared_bytes) plan.refusal = "more experts than shared memory has room for";
}

cudaError_t moe_route_run(const moe_route_params& p, const Run& run) {
  return launch(route_token, p.tokens, kThreads, round_up(17 * p.experts + 9 * p.groups, 16), run.stream, p);
}

}  // namespace hotset
