// attention/decode: out = softmax(softCap(scale q K^T)) V over a paged cache, one query per head.
//
// A context is cut into chunks by its own length, a block of 128 threads each; tiles of up to 128 tokens (16 KiB of keys)
// come by cp.async while the last is worked on; online softmax in f32; a second launch joins the chunks in order, so a
// sequence has the same bits alone or in a batch, in pages of any size. The query heads of a KV head go together, up to
// 16 a block, four to a warp with the queries in registers: K and V are read, and widened, once.
// Bound by memory: 32/8 heads x 128 are 1024 multiply-adds for 512 bytes of f16; an H200's 4.8 TB/s ask for 19 of its
// 67 TFLOP/s, and with widening, shuffles and shared memory about half of its issue slots (i8: nearly all). So no
// tensor cores, which would need the f32 queries split; groups above 8 would gain from them.
#include "../launch.h"
#include "decode_tile.h"

namespace hotset {

namespace {

template <class T, int H>
__global__ void __launch_bounds__(kDecodeThreads, 3) decode_chunks(attention_decode_params p, DecodeShape shape, RowUnits units, char* scratch, Status* status) {
  HOTSET_DYNAMIC_SHARED(shared);
  // Blocks that read the same rows, and then the rows of the same pages, are neighbours.
  int64_t at = blockIdx.x;
  const int value_block = int(at % shape.value_blocks);
  at /= shape.value_blocks;
  const int head_block = int(at % shape.head_blocks);
  at /= shape.head_blocks;
  const int64_t kv_head = at % p.kv_heads;
  at /= p.kv_heads;
  const int64_t chunk = at % shape.most_chunks, b = at / shape.most_chunks;

  const Seen seen = seen_by(p, read_once(p.lengths + b));
  const int64_t each = shape.chunk_tokens(seen.end - seen.first), first = seen.first + chunk * each, end = least(first + each, seen.end);
  if (first >= end) return;
  const int group = int(p.query_heads / p.kv_heads), block_heads = H * shape.head_groups;
  const int thread = int(threadIdx.x), warp = thread / 32;
  DecodeBlock<T, H> block = {p, shape, units, shared, b, kv_head, first, end, int(kv_head) * group + head_block * block_heads,
                             int(least(block_heads, group - head_block * block_heads)), value_block, thread, warp, thread % 32,
                             warp % shape.head_groups, warp / shape.head_groups, kDecodeWarps / shape.head_groups, {}, {}};
  block.start();
  for (int64_t i = 0; i < 2; i++) {
    int64_t entry;
    const int32_t page = block.find_page(i, entry);
    block.keep_slot(i, entry, page, status);
  }
  __syncthreads();
  block.ask(0);
  if (shape.key_segments == 1) block.take_queries(0);
  const int64_t tiles = ceil_div(end - first, shape.tile);
  for (int64_t i = 0; i < tiles; i++) {
    async_wait<0>();
    __syncthreads();
    if (i + 1 < tiles) block.ask(i + 1);
    int64_t entry;
    const int32_t page = block.find_page(i + 2, entry);
    block.dots(i);
    block.keep_slot(i + 2, entry, page, status);
    __syncthreads();
    block.weigh(i);
    __syncthreads();
    block.add_values(i);
  }
  block.write(chunk, reinterpret_cast<float*>(scratch), reinterpret_cast<float*>(scratch + shape.sums_at));
}

// A block joins the chunks of one head, in order, and the sink.
__global__ void __launch_bounds__(kDecodeThreads) join_chunks(attention_decode_params p, DecodeShape shape, const char* scratch, Status* status) {
  const int64_t row = blockIdx.x, b = row / p.query_heads, head = row % p.query_heads;
  const int32_t length = read_once(p.lengths + b);
  const Seen seen = seen_by(p, length);
  if (!seen.valid && head == 0 && threadIdx.x == 0) fault(status, attention_decode_port_lengths, b, length);
  const int64_t chunks = ceil_div(seen.end - seen.first, shape.chunk_tokens(seen.end - seen.first));
  const float* const stats = reinterpret_cast<const float*>(scratch) + row * shape.most_chunks * 2;
  const float* const sums = reinterpret_cast<const float*>(scratch + shape.sums_at) + row * shape.most_chunks * p.value_dim;
  const float sink = p.sinks ? p.sinks[head] : -INFINITY;
  float largest = fmaxf(sink, -INFINITY);
  for (int64_t c = 0; c < chunks; c++) largest = fmaxf(largest, stats[2 * c]);
  const float base = largest == -INFINITY ? 0 : largest;
  for (int64_t column = threadIdx.x; column < p.value_dim || column == threadIdx.x; column += kDecodeThreads) {
    float sum = sink == -INFINITY ? 0 : expf(sink - base), joined = 0;
    for (int64_t c = 0; c < chunks; c++) {
      // A chunk without tokens has sum 0; one whose logits are all NaN has sum NaN, and largest -Inf.
      if (stats[2 * c + 1] == 0) continue;
      const float weight = expf(stats[2 * c] - base);
      sum = fmaf(weight, stats[2 * c + 1], sum);
      if (column < p.value_dim) joined = fmaf(weight, sums[c * p.value_dim + column], joined);
    }
    if (column < p.value_dim) p.out[row * p.value_dim + column] = sum == 0 ? 0 : joined / sum;
    if (column == 0) p.lse[row] = sum == 0 ? -INFINITY : base + logf(sum);
  }
}

DecodeShape shape_of(const attention_decode_params& p, const Device& device) {
  DecodeShape shape = {};
  switch (p.key_pages_dtype) {
    case dtype_f32: shape.set<float>(p, device); break;
    case dtype_f16: shape.set<f16>(p, device); break;
    case dtype_bf16: shape.set<bf16>(p, device); break;
    default: shape.set<int8_t>(p, device);
  }
  return shape;
}

int64_t blocks_of(const attention_decode_params& p, const DecodeShape& shape) {
  return p.batch * shape.most_chunks * p.kv_heads * shape.head_blocks * shape.value_blocks;
}

int unit_of(const void* rows, int64_t bytes, int element) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(rows) | uint64_t(bytes);
  return bits % 16 == 0 ? 16 : bits % 4 == 0 ? 4 : element;
}

template <class T>
cudaError_t run_typed(const attention_decode_params& p, const DecodeShape& shape, const Run& run) {
  const RowUnits units = {unit_of(p.key_pages, p.head_dim * int64_t(sizeof(T)), sizeof(T)), unit_of(p.value_pages, p.value_dim * int64_t(sizeof(T)), sizeof(T))};
  const auto kernel = shape.heads == 4 ? decode_chunks<T, 4> : shape.heads == 2 ? decode_chunks<T, 2> : decode_chunks<T, 1>;
  return launch(kernel, blocks_of(p, shape), kDecodeThreads, shape.shared_bytes, run.stream, p, shape, units, run.scratch, run.status);
}

}  // namespace

void attention_decode_plan(const attention_decode_params& p, const Device& device, KernelPlan& plan) {
  const DecodeShape shape = shape_of(p, device);
  plan.name = "chunks";
  plan.scratch_bytes = shape.scratch_bytes;
  if (shape.shared_bytes > device.shared_bytes) plan.refusal = "a query and two keys do not fit the device's shared memory";
  if (blocks_of(p, shape) > kLargestGrid || p.batch * p.query_heads > kLargestGrid) plan.refusal = "more chunks than a grid has blocks";
}

cudaError_t attention_decode_run(const attention_decode_params& p, const Run& run) {
  const DecodeShape shape = shape_of(p, *run.device);
  cudaError_t error;
  switch (p.key_pages_dtype) {
    case dtype_f32: error = run_typed<float>(p, shape, run); break;
    case dtype_f16: error = run_typed<f16>(p, shape, run); break;
    case dtype_bf16: error = run_typed<bf16>(p, shape, run); break;
    default: error = run_typed<int8_t>(p, shape, run);
  }
  if (error != cudaSuccess) return error;
  return launch(join_chunks, p.batch * p.query_heads, kDecodeThreads, 0, run.stream, p, shape, run.scratch, run.status);
}

}  // namespace hotset
