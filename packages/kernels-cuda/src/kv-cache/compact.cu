// kv-cache/compact: token kept[i] of a head becomes its token i, in place, for ascending i.
//
// A block of 128 threads takes one head of one sequence. All that it names is compared first, a token a thread; the first
// that is bad is the fault, and the head is left as it is. Then rows go through 16 KiB of shared memory, as many at once
// as fit: all are read before one is written, and as kept[i] >= i later rows lie behind all that is written. Numbers are
// compared again where they are used. Bound by memory, with few heads by latency.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;
constexpr int64_t kStageBytes = 16 << 10;

struct Head {
  const kv_cache_compact_params& p;
  int64_t b, head, list, length;

  // The row of a token in pages, or -1 where its page does not exist.
  __device__ int64_t row_of(int64_t token) const {
    const int64_t page = read_once(p.page_table + b * p.max_pages + token / p.page_size);
    return page >= 0 && page < p.pages ? (page * p.kv_heads + head) * p.page_size + token % p.page_size : -1;
  }
  __device__ bool ascends(int64_t i, int64_t token) const {
    return token < length && token > (i > 0 ? read_once(p.kept + list * p.max_kept + i - 1) : -1);
  }
  __device__ int32_t token_at(int64_t i) const { return read_once(p.kept + list * p.max_kept + i); }

  __device__ void report(int64_t i, Status* status) const {
    const int32_t token = token_at(i);
    if (!ascends(i, token)) return fault(status, kv_cache_compact_port_kept, list * p.max_kept + i, token);
    const int64_t entry = b * p.max_pages + (row_of(i) < 0 ? i : token) / p.page_size;
    fault(status, kv_cache_compact_port_page_table, entry, read_once(p.page_table + entry));
  }
};

template <class T>
__device__ void move_rows(const Head& at, int64_t count, void* rows, int64_t dim, T* stage) {
  T* const all = static_cast<T*>(rows);
  const int64_t tile = most(1, kStageBytes / int64_t(sizeof(T)) / dim);
  for (int64_t first = 0; first < count; first += tile) {
    const int64_t elements = least(tile, count - first) * dim;
    for (int64_t n = threadIdx.x; n < elements; n += kThreads) {
      const int64_t i = first + n / dim, token = at.token_at(i), from = token >= i && token < at.length ? at.row_of(token) : -1;
      if (from >= 0) stage[n] = all[from * dim + n % dim];
    }
    __syncthreads();
    for (int64_t n = threadIdx.x; n < elements; n += kThreads) {
      const int64_t to = at.row_of(first + n / dim);
      if (to >= 0) all[to * dim + n % dim] = stage[n];
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads) compact_heads(kv_cache_compact_params p, Status* status) {
  __shared__ uint32_t stage[kStageBytes / 4];
  __shared__ unsigned long long bad;
  const int64_t list = blockIdx.x, b = list / p.kv_heads;
  const int32_t length = read_once(p.lengths + b), count = read_once(p.kept_count + list);
  const bool has_length = length >= 0 && length <= p.max_pages * p.page_size, has_count = count >= 0 && count <= p.max_kept;
  if (!has_length || !has_count) {
    if (threadIdx.x > 0) return;
    if (!has_length) fault(status, kv_cache_compact_port_lengths, b, length);
    else fault(status, kv_cache_compact_port_kept_count, list, count);
    return;
  }
  const Head at{p, b, list % p.kv_heads, list, length};
  if (threadIdx.x == 0) bad = ~0ull;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const int64_t token = at.token_at(i);
    if (!at.ascends(i, token) || at.row_of(i) < 0 || at.row_of(token) < 0) {
      atomicMin(&bad, (unsigned long long)(i));
      break;
    }
  }
  __syncthreads();
  if (bad != ~0ull) {
    if (threadIdx.x == 0) at.report(int64_t(bad), status);
    return;
  }
  if (p.key_pages_dtype == dtype_f32) {
    move_rows(at, count, p.key_pages, p.head_dim, stage);
    move_rows(at, count, p.value_pages, p.value_dim, stage);
  } else if (p.key_pages_dtype == dtype_i8) {
    move_rows(at, count, p.key_pages, p.head_dim, reinterpret_cast<uint8_t*>(stage));
    move_rows(at, count, p.value_pages, p.value_dim, reinterpret_cast<uint8_t*>(stage));
    move_rows(at, count, p.key_scale, 1, stage);
    move_rows(at, count, p.value_scale, 1, stage);
  } else {
    move_rows(at, count, p.key_pages, p.head_dim, reinterpret_cast<uint16_t*>(stage));
    move_rows(at, count, p.value_pages, p.value_dim, reinterpret_cast<uint16_t*>(stage));
  }
}

}  // namespace

void kv_cache_compact_plan(const kv_cache_compact_params& p, const Device&, KernelPlan& plan) {
  plan.name = "heads";
  if (p.batch * p.kv_heads > kLargestGrid) plan.refusal = "more heads than a grid has blocks";
}

cudaError_t kv_cache_compact_run(const kv_cache_compact_params& p, const Run& run) {
  return launch(compact_heads, p.batch * p.kv_heads, kThreads, 0, run.stream, p, run.status);
}

}  // namespace hotset
