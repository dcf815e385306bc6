// attention/prefill: out = softmax(softCap(scale q K^T)) V, causal, of many tokens over a paged cache.
//
// A block of 128 threads takes 64 rows (tokens x query heads of a KV head: K and V are read once for a group) and goes over
// the tokens they see in tiles of 32, at multiples of 32, with a running softmax in f32: a row's bits depend on what it sees
// alone. Products are on tensor cores, in tf32 parts: f16, bf16 and i8 are tf32 as they are, the f32 queries and weights two
// parts, f32 keys and values too. Each 8 terms are summed from 0 and then join an f32 sum: 44 roundings of f32 (62 of f32
// rows) beside the headDim + tokens + 32 that the op allows. What parts do not carry (infinities) is computed plainly.
// Sequence b's tiles have places of their own in the grid by its offsets, without a list; the last come first, as they
// are the longest. Bound by the tensor cores: 1024 tokens of 32/8 heads x 128 are 8.6 GFLOP, twice for the parts, 35 us of
// 494 TFLOP/s; and by shared memory, 5 KiB a warp for each 32 products of tiles, about as long.
#include "../launch.h"
#include "prefill_tile.h"

namespace hotset {

namespace {

constexpr int kAssignThreads = 128;
constexpr int32_t kNoSequence = 0x7fffffff;

// The queries and the length of a sequence, once compared.
struct Sequence {
  int32_t first, end, length;
  __device__ Sequence(const attention_prefill_params& p, int64_t b) : first(read_once(p.query_offsets + b)), end(read_once(p.query_offsets + b + 1)), length(read_once(p.lengths + b)) {}
  __device__ bool begins(const attention_prefill_params& p) const { return first >= 0 && first <= p.tokens; }
  __device__ bool ends(const attention_prefill_params& p) const { return end >= first && end <= p.tokens; }
  __device__ bool fits(const attention_prefill_params& p) const { return length >= 0 && length <= p.max_pages * p.page_size; }
  __device__ bool valid(const attention_prefill_params& p) const { return begins(p) && ends(p) && fits(p); }
};

// A warp a row: the last sequence that has it, and zeros where none has. The first block reports what is wrong.
__global__ void __launch_bounds__(kAssignThreads) assign_rows(attention_prefill_params p, int32_t* owners, Status* status) {
  for (int64_t b = threadIdx.x; b < p.batch && blockIdx.x == 0; b += kAssignThreads) {
    const Sequence sequence(p, b);
    if (!sequence.begins(p)) fault(status, attention_prefill_port_query_offsets, b, sequence.first);
    else if (!sequence.ends(p)) fault(status, attention_prefill_port_query_offsets, b + 1, sequence.end);
    if (!sequence.fits(p)) fault(status, attention_prefill_port_lengths, b, sequence.length);
  }
  const int lane = int(threadIdx.x) % 32;
  const int64_t row = int64_t(blockIdx.x) * (kAssignThreads / 32) + threadIdx.x / 32;
  if (row >= p.tokens) return;
  int32_t owner = -1;
  for (int64_t b = lane; b < p.batch; b += 32) {
    const Sequence sequence(p, b);
    if (sequence.valid(p) && row >= sequence.first && row < sequence.end) owner = int32_t(b);
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const int32_t other = __shfl_xor_sync(kAllLanes, owner, lanes);
    owner = other > owner ? other : owner;
  }
  if (lane == 0) owners[row] = owner;
  if (owner >= 0) return;
  for (int64_t i = lane; i < p.query_heads * p.value_dim; i += 32) p.out[row * p.query_heads * p.value_dim + i] = 0;
  for (int64_t i = lane; i < p.query_heads; i += 32) p.lse[row * p.query_heads + i] = -INFINITY;
}

template <bool TwoParts>
__global__ void __launch_bounds__(kPrefillThreads, 3) attend_tiles(attention_prefill_params p, PrefillShape shape, const int32_t* owners, Status* status) {
  HOTSET_DYNAMIC_SHARED(shared);
  __shared__ int32_t next, range[3];
  __shared__ int holes;
  int64_t at = blockIdx.x;
  const int64_t value_block = at % shape.value_blocks;
  at /= shape.value_blocks;
  const int64_t head_block = at % shape.head_blocks;
  at /= shape.head_blocks;
  const int64_t kv_head = at % p.kv_heads, place = shape.tiles - 1 - at / p.kv_heads;
  const int thread = int(threadIdx.x), lane = thread % 32;
  // The sequences that have this place: one, or none; more only where offsets do not ascend.
  for (int64_t b = -1;;) {
    __syncthreads();
    if (thread == 0) next = kNoSequence;
    __syncthreads();
    for (int64_t other = b + 1 + thread; other < p.batch; other += kPrefillThreads) {
      const Sequence sequence(p, other);
      if (!sequence.valid(p) || place < sequence.first / shape.tile_tokens + other || place > sequence.end / shape.tile_tokens + other) continue;
      atomicMin(&next, int32_t(other));
      break;
    }
    __syncthreads();
    b = next;
    if (b == kNoSequence) return;
    if (thread == 0) {
      const Sequence sequence(p, b);
      range[0] = sequence.first;
      range[1] = sequence.valid(p) ? sequence.end : sequence.first;
      range[2] = sequence.length;
    }
    __syncthreads();
    const int first = range[0], queries = range[1] - first;
    const int64_t tile = place - (first / shape.tile_tokens + b);
    if (tile < 0 || tile * shape.tile_tokens >= queries) continue;
    const int first_head = int(kv_head * (p.query_heads / p.kv_heads) + head_block * shape.tile_heads);
    PrefillTile<TwoParts> rows = {p, shape, shared, &holes, status, int(b), first, queries, range[2], int(tile), int(kv_head), first_head, int(value_block), thread, thread / 32, lane, lane / 4, lane % 4, {}, {}, {}, {}};
    rows.attend(owners);
  }
}

}  // namespace

void attention_prefill_plan(const attention_prefill_params& p, const Device& device, KernelPlan& plan) {
  const PrefillShape shape(p);
  plan.name = "tiles";
  plan.scratch_bytes = p.tokens * 4;
  if (shape.shared_bytes + 1024 > device.shared_bytes) plan.refusal = "a tile of queries, keys and values does not fit the device's shared memory";
  if (shape.blocks(p) > kLargestGrid || p.batch >= kNoSequence) plan.refusal = "more tiles than a grid has blocks";
}

cudaError_t attention_prefill_run(const attention_prefill_params& p, const Run& run) {
  const PrefillShape shape(p);
  int32_t* const owners = reinterpret_cast<int32_t*>(run.scratch);
  const cudaError_t error = launch(assign_rows, most(1, ceil_div(p.tokens, kAssignThreads / 32)), kAssignThreads, 0, run.stream, p, owners, run.status);
  if (error != cudaSuccess || p.tokens == 0) return error;
  const auto kernel = p.key_pages_dtype == dtype_f32 ? attend_tiles<true> : attend_tiles<false>;
  return launch(kernel, shape.blocks(p), kPrefillThreads, shape.shared_bytes, run.stream, p, shape, owners, run.status);
}

}  // namespace hotset
