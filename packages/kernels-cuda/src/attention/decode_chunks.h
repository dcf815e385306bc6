// The two launches of a decode step, for attention/decode and its siblings: a `Context` says which tokens a unit of heads sees.
#pragma once
#include "../launch.h"
#include "decode_tile.h"

namespace hotset {

namespace {

// The parameters that a sibling shares with attention/decode, at the same places among its ports.
template <class P>
inline attention_decode_params dense_params(const P& p) {
  attention_decode_params out = {};
  out.batch = p.batch;
  out.query_heads = p.query_heads;
  out.kv_heads = p.kv_heads;
  out.head_dim = p.head_dim;
  out.value_dim = p.value_dim;
  out.pages = p.pages;
  out.page_size = p.page_size;
  out.max_pages = p.max_pages;
  out.mask_heads = p.mask_heads;
  out.queries = p.queries;
  out.key_pages = p.key_pages;
  out.key_scale = p.key_scale;
  out.value_pages = p.value_pages;
  out.value_scale = p.value_scale;
  out.page_table = p.page_table;
  out.lengths = p.lengths;
  out.sinks = p.sinks;
  out.slopes = p.slopes;
  out.mask = p.mask;
  out.mask_dtype = p.mask_dtype;
  out.out = p.out;
  out.lse = p.lse;
  out.key_pages_dtype = p.key_pages_dtype;
  out.scale = p.scale;
  out.soft_cap = p.soft_cap;
  out.window = p.window;
  return out;
}

template <class T, int H, class Context>
__global__ void __launch_bounds__(kDecodeThreads, 3) decode_chunks(Context context, DecodeShape shape, RowUnits units, char* scratch, Status* status) {
  HOTSET_DYNAMIC_SHARED(shared);
  const attention_decode_params& p = context.p;
  // Blocks that read the same rows, and then the rows of the same pages, are neighbours.
  int64_t at = blockIdx.x;
  const int value_block = int(at % shape.value_blocks);
  at /= shape.value_blocks;
  const int head_block = int(at % shape.head_blocks);
  at /= shape.head_blocks;
  const int64_t unit = at % context.units();
  at /= context.units();
  const int64_t chunk = at % shape.most_chunks, b = at / shape.most_chunks;

  const Seen seen = seen_by(p, read_once(p.lengths + b));
  const Seen range = context.positions(seen);
  const int64_t each = shape.chunk_tokens(range.end - range.first), first = range.first + chunk * each, end = least(first + each, range.end);
  if (first >= end) return;
  const int group = int(p.query_heads / context.units()), block_heads = H * shape.head_groups;
  const int thread = int(threadIdx.x), warp = thread / 32;
  DecodeBlock<T, H, Context> block = {context, p, seen, unit, shape, units, shared, b, context.kv_head(unit), first, end, int(unit) * group + head_block * block_heads,
                             int(least(block_heads, group - head_block * block_heads)), value_block, thread, warp, thread % 32,
                             warp % shape.head_groups, warp / shape.head_groups, kDecodeWarps / shape.head_groups, {}, {}};
  block.start();
  for (int64_t i = 0; i < 2; i++) {
    int64_t token;
    const int32_t page = block.find_page(i, token, status);
    block.keep_slot(i, token, page, status);
  }
  __syncthreads();
  block.ask(0);
  if (shape.key_segments == 1) block.take_queries(0);
  const int64_t tiles = ceil_div(end - first, shape.tile);
  for (int64_t i = 0; i < tiles; i++) {
    async_wait<0>();
    __syncthreads();
    if (i + 1 < tiles) block.ask(i + 1);
    int64_t token;
    const int32_t page = block.find_page(i + 2, token, status);
    block.dots(i);
    block.keep_slot(i + 2, token, page, status);
    __syncthreads();
    block.weigh(i, status);
    __syncthreads();
    block.add_values(i);
  }
  block.write(chunk, reinterpret_cast<float*>(scratch), reinterpret_cast<float*>(scratch + shape.sums_at));
}

// A block joins the chunks of one head, in order, and the sink.
template <class Context>
__global__ void __launch_bounds__(kDecodeThreads) join_chunks(Context context, DecodeShape shape, const char* scratch, Status* status) {
  const attention_decode_params& p = context.p;
  const int64_t row = blockIdx.x, b = row / p.query_heads, head = row % p.query_heads;
  const int32_t length = read_once(p.lengths + b);
  const Seen seen = seen_by(p, length);
  if (!seen.valid && head == 0 && threadIdx.x == 0) fault(status, attention_decode_port_lengths, b, length);
  const Seen range = context.positions(seen);
  const int64_t chunks = ceil_div(range.end - range.first, shape.chunk_tokens(range.end - range.first));
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

template <class Context>
DecodeShape shape_of(const Context& context, const Device& device) {
  DecodeShape shape = {};
  switch (context.p.key_pages_dtype) {
    case dtype_f32: shape.set<float>(context, device); break;
    case dtype_f16: shape.set<f16>(context, device); break;
    case dtype_bf16: shape.set<bf16>(context, device); break;
    default: shape.set<int8_t>(context, device);
  }
  return shape;
}

template <class Context>
int64_t blocks_of(const Context& context, const DecodeShape& shape) {
  return context.p.batch * shape.most_chunks * context.units() * shape.head_blocks * shape.value_blocks;
}

inline int unit_of(const void* rows, int64_t bytes, int element) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(rows) | uint64_t(bytes);
  return bits % 16 == 0 ? 16 : bits % 4 == 0 ? 4 : element;
}

template <class T, class Context>
cudaError_t run_typed(const Context& context, const DecodeShape& shape, const Run& run) {
  const attention_decode_params& p = context.p;
  const RowUnits units = {unit_of(p.key_pages, p.head_dim * int64_t(sizeof(T)), sizeof(T)), unit_of(p.value_pages, p.value_dim * int64_t(sizeof(T)), sizeof(T))};
  const auto kernel = shape.heads == 4 ? decode_chunks<T, 4, Context> : shape.heads == 2 ? decode_chunks<T, 2, Context> : decode_chunks<T, 1, Context>;
  return launch(kernel, blocks_of(context, shape), kDecodeThreads, shape.shared_bytes, run.stream, context, shape, units, run.scratch, run.status);
}

template <class Context>
void plan_decode(const Context& context, const Device& device, KernelPlan& plan) {
  const DecodeShape shape = shape_of(context, device);
  plan.name = "chunks";
  plan.scratch_bytes = shape.scratch_bytes;
  if (shape.shared_bytes > device.shared_bytes) plan.refusal = "a query and two keys do not fit the device's shared memory";
  if (blocks_of(context, shape) > kLargestGrid || context.p.batch * context.p.query_heads > kLargestGrid) plan.refusal = "more chunks than a grid has blocks";
}

template <class Context>
cudaError_t run_decode(const Context& context, const Run& run) {
  const DecodeShape shape = shape_of(context, *run.device);
  cudaError_t error;
  switch (context.p.key_pages_dtype) {
    case dtype_f32: error = run_typed<float>(context, shape, run); break;
    case dtype_f16: error = run_typed<f16>(context, shape, run); break;
    case dtype_bf16: error = run_typed<bf16>(context, shape, run); break;
    default: error = run_typed<int8_t>(context, shape, run);
  }
  if (error != cudaSuccess) return error;
  return launch(join_chunks<Context>, context.p.batch * context.p.query_heads, kDecodeThreads, 0, run.stream, context, shape, run.scratch, run.status);
}

}  // namespace

}  // namespace hotset
