// moe/grouped-ffn: out[i] = W_down (silu(W_gate x) * (W_up x)) for the rows of each expert.
//
// Four small launches check the indices, keep the first of rows that stand twice, and write the rows of zeros. Then a warp
// takes a row of weights and up to 8 rows of one expert: each weight is read once for them, lanes along the row, and widened to
// f32; gate and up go together. Sums are f32 of a lane's share, joined in one order: the same bits alone or among others.
// Bound by the bandwidth of the weights up to some 8 rows an expert; beyond, each 8 rows read the weights again from L2.
#include "../device.h"
#include "../launch.h"
#include "../numbers.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kRows = 8;
// Rows of weights of a warp, one after the other.
constexpr int kEach = 4;
constexpr int32_t kNobody = 0x7fffffff;

// In device memory.
struct Scratch {
  int32_t* owners;  // [assignments]: the first row of each in `sorted`
  int32_t* rows;    // [capacity]: checked assignments, -1 for none
  int32_t* slots;   // [blocks]: of the block's expert, -1 for none
  float* inside;    // [capacity][hidden]

  Scratch(const moe_grouped_ffn_params& p, char* memory) {
    owners = reinterpret_cast<int32_t*>(memory);
    rows = owners + p.tokens * p.top_k;
    slots = rows + p.capacity;
    inside = reinterpret_cast<float*>(slots + ceil_div(p.capacity, p.block_size));
  }
  static int64_t bytes(const moe_grouped_ffn_params& p) {
    return 4 * (p.tokens * p.top_k + p.capacity + ceil_div(p.capacity, p.block_size) + p.capacity * p.hidden);
  }
};

__device__ int32_t checked(const int32_t* values, int64_t i, int64_t below, int port, Status* status) {
  const int32_t value = read_once(values + i);
  if (value >= 0 && value < below) return value;
  if (value != -1 && status) fault(status, port, i, value);
  return -1;
}

__global__ void __launch_bounds__(kThreads) begin(int64_t assignments, int32_t* owners) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < assignments) owners[i] = kNobody;
}

__global__ void __launch_bounds__(kThreads) claim(moe_grouped_ffn_params p, Scratch scratch, Status* status) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < p.experts) checked(p.expert_slot, i, p.slots, moe_grouped_ffn_port_expert_slot, status);
  if (i < ceil_div(p.capacity, p.block_size)) {
    const int32_t expert = checked(p.block_expert, i, p.experts, moe_grouped_ffn_port_block_expert, status);
    scratch.slots[i] = expert < 0 ? -1 : checked(p.expert_slot, expert, p.slots, 0, nullptr);
  }
  if (i >= p.capacity) return;
  const int32_t assignment = checked(p.sorted, i, p.tokens * p.top_k, moe_grouped_ffn_port_sorted, status);
  scratch.rows[i] = assignment;
  if (assignment >= 0) atomicMin(&scratch.owners[assignment], int32_t(i));
}

__global__ void __launch_bounds__(kThreads) settle(moe_grouped_ffn_params p, Scratch scratch, Status* status) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.capacity || scratch.rows[i] < 0 || scratch.owners[scratch.rows[i]] == i) return;
  fault(status, moe_grouped_ffn_port_sorted, i, scratch.rows[i]);
  scratch.rows[i] = -1;
}

__global__ void __launch_bounds__(kThreads) clear(moe_grouped_ffn_params p, Scratch scratch) {
  const int32_t owner = scratch.owners[blockIdx.x];
  if (owner != kNobody && scratch.slots[owner / p.block_size] >= 0) return;
  for (int64_t i = threadIdx.x; i < p.dim; i += kThreads) p.out[blockIdx.x * p.dim + i] = 0;
}

struct q8_0 {};

// Element i of a row of weights, as f32.
template <class T>
struct Row {
  const T* at;
  __device__ Row(const void* weights, int64_t row, int64_t width) : at(static_cast<const T*>(weights) + row * width) {}
  __device__ float get(int64_t i) const { return widen_one(at + i); }
};
template <>
struct Row<q8_0> {
  const uint8_t* at;
  __device__ Row(const void* weights, int64_t row, int64_t width) : at(static_cast<const uint8_t*>(weights) + row * ceil_div(width, 32) * 34) {}
  __device__ float get(int64_t i) const {
    const uint8_t* const block = at + i / 32 * 34;
    return widen_halves(unsigned(block[0]) | unsigned(block[1]) << 8).x * float(int8_t(block[2 + i % 32]));
  }
};

// The lanes' sums, for all of them.
__device__ float warp_sum(float value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}

__device__ float silu(float g) { return g <= -87 ? 0 : g / (1 + expf(-g)); }

// Up to 8 rows of one block of `sorted`, of those that are there.
struct Rows {
  int count;
  int64_t slot;
  int32_t assignment[kRows];
  int64_t place[kRows];

  __device__ Rows(const moe_grouped_ffn_params& p, const Scratch& scratch, int64_t index) : count(0) {
    const int64_t parts = ceil_div(p.block_size, kRows), block = index / parts;
    slot = scratch.slots[block];
    const int64_t first = block * p.block_size + index % parts * kRows;
    const int64_t end = least(least(first + kRows, (block + 1) * p.block_size), p.capacity);
    for (int64_t i = first; slot >= 0 && i < end; i++) {
      if (scratch.rows[i] < 0) continue;
      assignment[count] = scratch.rows[i];
      place[count++] = i;
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads) up(moe_grouped_ffn_params p, Scratch scratch, int64_t tiles) {
  const Rows rows(p, scratch, blockIdx.x / tiles);
  if (rows.count == 0) return;
  const int lane = int(threadIdx.x) % 32;
  const int64_t first = (blockIdx.x % tiles * kWarps + threadIdx.x / 32) * kEach;
  for (int64_t h = first; h < least(p.hidden, first + kEach); h++) {
    const Row<T> gate(p.gate, rows.slot * p.hidden + h, p.dim), up(p.up, rows.slot * p.hidden + h, p.dim);
    float g[kRows], u[kRows];
    for (int r = 0; r < kRows; r++) g[r] = u[r] = 0;
    for (int64_t i = lane; i < p.dim; i += 32) {
      const float a = gate.get(i), b = up.get(i);
HOTSET_UNROLL
      for (int r = 0; r < kRows; r++) {
        if (r >= rows.count) continue;
        const float x = p.x[rows.assignment[r] / p.top_k * p.dim + i];
        g[r] = fmaf(a, x, g[r]);
        u[r] = fmaf(b, x, u[r]);
      }
    }
    for (int r = 0; r < rows.count; r++) {
      const float both = silu(warp_sum(g[r])) * warp_sum(u[r]);
      if (lane == 0) scratch.inside[rows.place[r] * p.hidden + h] = both;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) down(moe_grouped_ffn_params p, Scratch scratch, int64_t tiles) {
  const Rows rows(p, scratch, blockIdx.x / tiles);
  if (rows.count == 0) return;
  const int lane = int(threadIdx.x) % 32;
  const int64_t first = (blockIdx.x % tiles * kWarps + threadIdx.x / 32) * kEach;
  for (int64_t c = first; c < least(p.dim, first + kEach); c++) {
    const Row<T> weights(p.down, rows.slot * p.dim + c, p.hidden);
    float sum[kRows];
    for (int r = 0; r < kRows; r++) sum[r] = 0;
    for (int64_t i = lane; i < p.hidden; i += 32) {
      const float a = weights.get(i);
HOTSET_UNROLL
      for (int r = 0; r < kRows; r++)
        if (r < rows.count) sum[r] = fmaf(a, scratch.inside[rows.place[r] * p.hidden + i], sum[r]);
    }
    for (int r = 0; r < rows.count; r++) {
      const float value = warp_sum(sum[r]);
      if (lane == 0) p.out[rows.assignment[r] * p.dim + c] = value;
    }
  }
}

int64_t tiles_of(int64_t rows) { return ceil_div(rows, kWarps * kEach); }
int64_t parts_of(const moe_grouped_ffn_params& p) { return ceil_div(p.capacity, p.block_size) * ceil_div(p.block_size, kRows); }

template <class T>
cudaError_t run_experts(const moe_grouped_ffn_params& p, const Scratch& scratch, cudaStream_t stream) {
  const cudaError_t error = launch(up<T>, parts_of(p) * tiles_of(p.hidden), kThreads, 0, stream, p, scratch, tiles_of(p.hidden));
  if (error != cudaSuccess) return error;
  return launch(down<T>, parts_of(p) * tiles_of(p.dim), kThreads, 0, stream, p, scratch, tiles_of(p.dim));
}

}  // namespace

void moe_grouped_ffn_plan(const moe_grouped_ffn_params& p, const Device&, KernelPlan& plan) {
  plan.name = "warps";
  plan.scratch_bytes = Scratch::bytes(p);
  if (parts_of(p) * tiles_of(most(p.hidden, p.dim)) > kLargestGrid || p.tokens * p.top_k > kLargestGrid) plan.refusal = "more rows than a grid has blocks";
}

cudaError_t moe_grouped_ffn_run(const moe_grouped_ffn_params& p, const Run& run) {
  const Scratch scratch(p, run.scratch);
  const int64_t assignments = p.tokens * p.top_k;
  const int64_t checks = ceil_div(most(p.capacity, p.experts), kThreads);
  cudaError_t error = launch(begin, ceil_div(assignments, kThreads), kThreads, 0, run.stream, assignments, scratch.owners);
  if (error == cudaSuccess) error = launch(claim, checks, kThreads, 0, run.stream, p, scratch, run.status);
  if (error == cudaSuccess) error = launch(settle, checks, kThreads, 0, run.stream, p, scratch, run.status);
  if (error == cudaSuccess) error = launch(clear, assignments, kThreads, 0, run.stream, p, scratch);
  if (error != cudaSuccess || assignments == 0) return error;
  if (p.gate_dtype == dtype_f32) return run_experts<float>(p, scratch, run.stream);
  if (p.gate_dtype == dtype_f16) return run_experts<f16>(p, scratch, run.stream);
  return run_experts<q8_0>(p, scratch, run.stream);
}

}  // namespace hotset
