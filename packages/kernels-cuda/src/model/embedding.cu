// model/embedding: out_t = table[ids_t], widened to f32.
//
// A block of 128 threads takes a token and 512 of its components, four neighbours a thread: one store of 16 bytes, beside
// loads of 16 bytes (f32), 8 (f16, bf16), or two of 2 and the block's scale (q8_0, whose blocks of 34 bytes start on even
// addresses only). Each dtype widens exactly. Rows whose length is no multiple of four go element by element. Bound by
// memory: the rows are read once, and written four bytes a component.
#include "../device.h"
#include "../launch.h"
#include "../numbers.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;
constexpr int kColumns = 4 * kThreads;

__device__ float q8_0_at(const uint8_t* row, int64_t i) {
  const uint8_t* const block = row + i / 32 * 34;
  return widen_half_bytes(block) * float(int8_t(block[2 + i % 32]));
}

__device__ float element(const model_embedding_params& p, int64_t row, int64_t i) {
  if (p.table_dtype == dtype_f32) return static_cast<const float*>(p.table)[row * p.dim + i];
  if (p.table_dtype == dtype_f16) return widen_one(static_cast<const f16*>(p.table) + row * p.dim + i);
  if (p.table_dtype == dtype_bf16) return widen_one(static_cast<const bf16*>(p.table) + row * p.dim + i);
  return q8_0_at(static_cast<const uint8_t*>(p.table) + row * (p.dim / 32 * 34), i);
}

// Components i to i + 3, i a multiple of four, of a row that starts on as many bytes as four of them take.
__device__ float4 four(const model_embedding_params& p, int64_t row, int64_t i) {
  if (p.table_dtype == dtype_f32) return *reinterpret_cast<const float4*>(static_cast<const float*>(p.table) + row * p.dim + i);
  float x[4];
  if (p.table_dtype == dtype_q8_0) {
    const uint16_t* const block = reinterpret_cast<const uint16_t*>(static_cast<const uint8_t*>(p.table) + (row * (p.dim / 32) + i / 32) * 34);
    const float scale = widen_halves(block[0]).x;
    const uint16_t* const pairs = block + 1 + i % 32 / 2;
    widen_word(static_cast<const int8_t*>(nullptr), pairs[0] | unsigned(pairs[1]) << 16, x);
    return make_float4(scale * x[0], scale * x[1], scale * x[2], scale * x[3]);
  }
  const uint2 words = *reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(p.table) + row * p.dim + i);
  if (p.table_dtype == dtype_f16) {
    widen_word(static_cast<const f16*>(nullptr), words.x, x);
    widen_word(static_cast<const f16*>(nullptr), words.y, x + 2);
  } else {
    widen_word(static_cast<const bf16*>(nullptr), words.x, x);
    widen_word(static_cast<const bf16*>(nullptr), words.y, x + 2);
  }
  return make_float4(x[0], x[1], x[2], x[3]);
}

__global__ void __launch_bounds__(kThreads) copy_rows(model_embedding_params p, int64_t tiles, bool whole, Status* status) {
  const int64_t t = blockIdx.x / tiles, first = blockIdx.x % tiles * kColumns + 4 * int64_t(threadIdx.x);
  const int32_t id = read_once(p.ids + t);
  const bool there = id >= 0 && id < p.vocab;
  if (!there && threadIdx.x == 0) fault(status, model_embedding_port_ids, t, id);
  if (first >= p.dim) return;
  float* const out = p.out + t * p.dim;
  if (whole) *reinterpret_cast<float4*>(out + first) = there ? four(p, id, first) : make_float4(0, 0, 0, 0);
  else
    for (int64_t i = first; i < least(p.dim, first + 4); i++) out[i] = there ? element(p, id, i) : 0;
}

}  // namespace

void model_embedding_plan(const model_embedding_params& p, const Device&, KernelPlan& plan) {
  plan.name = "rows";
  if (p.tokens * ceil_div(p.dim, kColumns) > kLargestGrid) plan.refusal = "more tokens than a grid has blocks";
}

cudaError_t model_embedding_run(const model_embedding_params& p, const Run& run) {
  const int64_t tiles = ceil_div(p.dim, kColumns);
  const bool whole = (uint64_t(p.dim) * 4 | reinterpret_cast<uintptr_t>(p.table) | reinterpret_cast<uintptr_t>(p.out)) % 16 == 0;
  return launch(copy_rows, p.tokens * tiles, kThreads, 0, run.stream, p, tiles, whole, run.status);
}

}  // namespace hotset
