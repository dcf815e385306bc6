// attention/continual-retroactive: out_i = AV_i / d_i for each query of the window, with d and AV brought up to date: what the
// leaving key weighed is taken off, what the new one weighs is added; a row whose estimated error grows too large is computed
// exactly, and so is the newest.
//
// The first launch, a block a head of a stream, keeps what leaves the ring in scratch and puts the newest there. The second has a
// block of 128 threads for 4 rows: a warp updates each (all lanes compute both logits, from broadcast loads, then lanes are
// columns); rows that it refuses are computed by the whole block, chunks of 128 tokens, with no word to the host. f32 relative to
// whole powers of two. Bound by memory, 4 window x dim floats a head, as long as few rows are refused.
#include "../launch.h"
#include "continual_rows.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kRows = kContinualThreads / 32;
constexpr int kRowExtra = 3;
constexpr float kUnit = 0x1p-24f;

// What the first launch leaves of a head: its turn, then the key and the value that left.
struct Left {
  int32_t slot, held, oldest, full;
};
int64_t left_bytes(const attention_continual_retroactive_params& p) { return round_up(sizeof(Left) + 8 * p.head_dim, 16); }

__global__ void __launch_bounds__(kContinualThreads) insert(attention_continual_retroactive_params p, char* scratch, int64_t each, Status* status) {
  const int64_t head = blockIdx.x, stream = head / p.heads, dim = p.head_dim;
  const int thread = int(threadIdx.x);
  const int32_t steps = read_once(p.steps + stream);
  Left* const left = reinterpret_cast<Left*>(scratch + head * each);
  float* const leaving = reinterpret_cast<float*>(left + 1);
  Turn turn = {};
  const bool sound = turn_of(steps, p.window, turn);
  if (thread == 0) {
    p.error[head] = 0;
    p.recomputed[head] = 0;
    *left = {int32_t(turn.slot), int32_t(turn.held), int32_t(turn.oldest), turn.full};
    if (!sound) fault(status, attention_continual_retroactive_port_steps, stream, steps);
  }
  if (!sound) return;
  const int64_t at = (head * p.window + turn.slot) * dim;
  for (int64_t d = thread; d < dim; d += kContinualThreads) {
    leaving[d] = p.key_ring[at + d];
    leaving[dim + d] = p.value_ring[at + d];
    p.key_ring[at + d] = p.key[head * dim + d];
    p.value_ring[at + d] = p.value[head * dim + d];
    p.query_ring[at + d] = p.query[head * dim + d];
  }
}

// By a warp: whether the row is as it must be now.
__device__ bool update_row(const attention_continual_retroactive_params& p, int64_t head, const float* query, const float* leaving, bool full, float* weighted, float* out, int lane) {
  const int64_t dim = p.head_dim;
  const Weight in = split_exp(row_dot(query, p.key + head * dim, dim) * p.scale);
  const Weight off = full ? split_exp(row_dot(query, leaving, dim) * p.scale) : Weight{0, 0};
  const float kept = weighted[dim], power = fmaxf(kept, in.power), factor = scale_of(kept - power);
  const float arrives = in.part * scale_of(in.power - power), leaves = off.part * scale_of(off.power - power);
  const float before = weighted[dim + 1] * factor, sum = (before - leaves) + arrives;
  const float error = (weighted[dim + 2] * before + (2 * kUnit * fmaxf(before, leaves) + kUnit * arrives)) / sum;
  // A sum that cancelled may be anything, so that its estimate is negative or not a number.
  if (!(sum > 0 && error < p.tolerance)) return false;
  const float* const value = p.value + head * dim;
  float odd = 0;
  for (int64_t d = lane; d < dim; d += 32) {
    float x = weighted[d] * factor;
    if (full) x = fmaf(-leaves, leaving[dim + d], x);
    x = fmaf(arrives, value[d], x);
    weighted[d] = x;
    const float y = x / sum;
    out[d] = y;
    if (!(fabsf(y) < INFINITY)) odd = 1;
  }
  if (warp_max(odd) != 0) return false;
  if (lane == 0) {
    weighted[dim] = power;
    weighted[dim + 1] = sum;
    weighted[dim + 2] = error;
  }
  return true;
}

__global__ void __launch_bounds__(kContinualThreads) update_rows(attention_continual_retroactive_params p, const char* scratch, int64_t each, int64_t tiles) {
  __shared__ RowShared shared;
  __shared__ int refused[kRows];
  const int64_t head = blockIdx.x / tiles, tile = blockIdx.x % tiles, dim = p.head_dim, ring = head * p.window * dim;
  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const Left turn = *reinterpret_cast<const Left*>(scratch + head * each);
  const float* const leaving = reinterpret_cast<const float*>(scratch + head * each + sizeof(Left));
  // Nobody reads the steps in this launch.
  if (tile == 0 && head % p.heads == 0 && thread == 0 && turn.held > 0) p.steps[head / p.heads] = next_steps(p.steps[head / p.heads], p.window);
  const auto place = [&](int64_t slot) { return slot >= turn.oldest ? slot - turn.oldest : slot - turn.oldest + p.window; };
  const auto row = [&](int64_t slot) { return p.rows + (head * p.window + slot) * (dim + kRowExtra); };
  const int64_t slot = tile * kRows + warp;
  bool taken = true;
  if (slot < turn.held) {
    float* const out = p.out + ring + place(slot) * dim;
    taken = slot != turn.slot && update_row(p, head, p.query_ring + ring + slot * dim, leaving, turn.full, row(slot), out, lane);
  } else if (slot < p.window) {
    for (int64_t d = lane; d < dim; d += 32) p.out[ring + slot * dim + d] = 0;
  }
  if (lane == 0) {
    refused[warp] = !taken;
    if (slot < turn.held && taken) atomicMax(reinterpret_cast<unsigned*>(p.error + head), __float_as_uint(row(slot)[dim + 2]));
    if (!taken && slot != turn.slot) atomicAdd(p.recomputed + head, int32_t(1));
  }
  __syncthreads();
  for (int i = 0; i < kRows; i++) {
    if (!refused[i]) continue;
    const int64_t again = tile * kRows + i;
    float* const weighted = row(again);
    const RowSum sum = exact_row(p.query_ring + ring + again * dim, p.key_ring + ring, p.value_ring + ring, turn.held, dim, p.scale, weighted, shared);
    const bool sound = divide_row(weighted, sum.sum, dim, p.out + ring + place(again) * dim, shared);
    for (int64_t d = thread; d < dim && !sound; d += kContinualThreads) weighted[d] = 0;
    if (thread == 0) {
      weighted[dim] = sound ? sum.power : 0;
      weighted[dim + 1] = sound ? sum.sum : 0;
      weighted[dim + 2] = sound ? 0 : INFINITY;
      if (!sound) atomicMax(reinterpret_cast<unsigned*>(p.error + head), __float_as_uint(INFINITY));
    }
  }
}

int64_t tiles_of(const attention_continual_retroactive_params& p) { return ceil_div(p.window, kRows); }

}  // namespace

void attention_continual_retroactive_plan(const attention_continual_retroactive_params& p, const Device&, KernelPlan& plan) {
  plan.name = "rows";
  plan.scratch_bytes = p.streams * p.heads * left_bytes(p);
  if (p.streams * p.heads * tiles_of(p) > kLargestGrid) plan.refusal = "more rows than a grid has blocks";
}

cudaError_t attention_continual_retroactive_run(const attention_continual_retroactive_params& p, const Run& run) {
  const int64_t heads = p.streams * p.heads, each = left_bytes(p);
  const cudaError_t error = launch(insert, heads, kContinualThreads, 0, run.stream, p, run.scratch, each, run.status);
  if (error != cudaSuccess) return error;
  return launch(update_rows, heads * tiles_of(p), kContinualThreads, 0, run.stream, p, static_cast<const char*>(run.scratch), each, tiles_of(p));
}

}  // namespace hotset
