// attention/key-hashes: the signs of each new key, as bits, into its slot.
//
// A block of 128 threads takes a token; a warp has 32 components at a time, one a lane, and a vote of theirs is a word of the
// hash. Bound by the keys' bandwidth.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) hash_keys(attention_key_hashes_params p, Status* status) {
  __shared__ int32_t shared_slot;
  const int64_t t = blockIdx.x, words = p.bits / 32;
  const int thread = int(threadIdx.x), lane = thread % 32;
  if (thread == 0) shared_slot = read_once(p.slots + t);
  __syncthreads();
  const int64_t slot = shared_slot;
  if (slot == -1) return;
  if (slot < 0 || slot >= p.pages * p.page_size) {
    if (thread == 0) fault(status, attention_key_hashes_port_slots, t, int32_t(slot));
    return;
  }
  for (int64_t i = thread / 32; i < p.kv_heads * words; i += kThreads / 32) {
    const unsigned word = __ballot_sync(kAllLanes, p.keys[t * p.kv_heads * p.bits + i * 32 + lane] < 0);
    const int64_t head = i / words;
    if (lane == 0) p.hash_pages[((slot / p.page_size * p.kv_heads + head) * p.page_size + slot % p.page_size) * words + i % words] = word;
  }
}

}  // namespace

void attention_key_hashes_plan(const attention_key_hashes_params& p, const Device&, KernelPlan& plan) {
  plan.name = "rows";
  if (p.tokens > kLargestGrid) plan.refusal = "more tokens than a grid has blocks";
}

cudaError_t attention_key_hashes_run(const attention_key_hashes_params& p, const Run& run) {
  return launch(hash_keys, p.tokens, kThreads, 0, run.stream, p, run.status);
}

}  // namespace hotset
