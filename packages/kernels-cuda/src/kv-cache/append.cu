// kv-cache/append: row [token, head] of keys and values goes to [page, head, place], in the cache's dtype.
//
// A block of 128 threads takes a token; all of it look for its slot among the earlier tokens (16 KB of slots at 4096, which
// lie in L1), so that a repeated slot is a fault and the first token wins. Then each warp takes rows. f16 and bf16 round
// to nearest even by integer arithmetic; i8 divides in f64, as the reference does: the same bits. Bound by memory.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;

__device__ uint16_t f16_of(float x) {
  const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, m = bits & 0x7fffffff;
  if (m > 0x7f800000) return 0x7e00;
  if (m >= 0x477ff000) return uint16_t(sign | 0x7c00);
  // Below 2^-14 the spacing is 2^-24, which is that of floats at 0.5.
  if (m < 0x38800000) return uint16_t(sign | (__float_as_uint(__uint_as_float(m) + 0.5f) - 0x3f000000));
  const unsigned rebased = m - 0x38000000;
  return uint16_t(sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13);
}

__device__ uint16_t bf16_of(float x) {
  const unsigned bits = __float_as_uint(x);
  return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ void quantise(const float* row, int64_t dim, int8_t* out, float* scale, int lane) {
  float largest = 0, nan = 0;
  for (int64_t i = lane; i < dim; i += 32) {
    if (row[i] != row[i]) nan = 1;
    largest = fmaxf(largest, fabsf(row[i]));
  }
  largest = warp_max(largest);
  nan = warp_max(nan);
  const float step = nan > 0 ? __uint_as_float(0x7fc00000) : float(double(largest) / 127);
  const bool sound = step > 0 && step < INFINITY;
  if (lane == 0) *scale = step;
  for (int64_t i = lane; i < dim; i += 32) {
    // Adding 1.5 * 2^52 rounds to a whole number, ties to even.
    const double whole = sound ? (double(row[i]) / double(step) + 6755399441055744.0) - 6755399441055744.0 : 0;
    out[i] = int8_t(whole > 127 ? 127 : whole < -127 ? -127 : whole);
  }
}

__device__ void store_row(const float* row, int64_t dim, void* rows, float* scale, int64_t at, uint32_t dtype, int lane) {
  const int64_t from = at * dim;
  if (dtype == dtype_i8) quantise(row, dim, static_cast<int8_t*>(rows) + from, scale + at, lane);
  else
    for (int64_t i = lane; i < dim; i += 32) {
      if (dtype == dtype_f32) static_cast<unsigned*>(rows)[from + i] = reinterpret_cast<const unsigned*>(row)[i];
      else static_cast<uint16_t*>(rows)[from + i] = dtype == dtype_f16 ? f16_of(row[i]) : bf16_of(row[i]);
    }
}

__global__ void __launch_bounds__(kThreads) append_rows(kv_cache_append_params p, Status* status) {
  __shared__ int32_t shared_slot;
  __shared__ int repeated;
  const int64_t t = blockIdx.x;
  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
  if (thread == 0) {
    shared_slot = read_once(p.slots + t);
    repeated = 0;
  }
  __syncthreads();
  const int64_t slot = shared_slot;
  if (slot == -1) return;
  const bool exists = slot >= 0 && slot < p.pages * p.page_size;
  for (int64_t earlier = thread; exists && earlier < t; earlier += kThreads)
    if (read_once(p.slots + earlier) == slot) repeated = 1;
  __syncthreads();
  if (!exists || repeated) {
    if (thread == 0) fault(status, kv_cache_append_port_slots, t, int32_t(slot));
    return;
  }
  for (int64_t head = warp; head < p.kv_heads; head += kThreads / 32) {
    const int64_t from = t * p.kv_heads + head, to = (slot / p.page_size * p.kv_heads + head) * p.page_size + slot % p.page_size;
    store_row(p.keys + from * p.head_dim, p.head_dim, p.key_pages, p.key_scale, to, p.key_pages_dtype, lane);
    store_row(p.values + from * p.value_dim, p.value_dim, p.value_pages, p.value_scale, to, p.key_pages_dtype, lane);
  }
}

}  // namespace

void kv_cache_append_plan(const kv_cache_append_params& p, const Device&, KernelPlan& plan) {
  plan.name = "rows";
  if (p.tokens > kLargestGrid) plan.refusal = "more tokens than a grid has blocks";
}

cudaError_t kv_cache_append_run(const kv_cache_append_params& p, const Run& run) {
  return launch(append_rows, p.tokens, kThreads, 0, run.stream, p, run.status);
}

}  // namespace hotset
