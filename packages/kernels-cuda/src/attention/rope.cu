// attention/rope: turns pairs of components of each head by position * frequency_i, frequency_i = theta^(-i / pairs).
//
// A block of 256 threads takes a token: its frequencies, angles, sines and cosines once, in f64, and as f32 in shared
// memory for all heads; then the block goes over the heads' pairs, neighbours by neighbouring threads. Rotations are f32.
// Bound by memory with many tokens: 8 bytes a component beside an eighth or less of a sine (32 heads x 128: 64 sines
// and powers a token, some 300 f64 operations each); one token takes the latency of a power and a sine, some microseconds.
#include "../device.h"
#include "../launch.h"
#include "gen/params.h"

namespace hotset {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) turn(attention_rope_params p, bool whole) {
  HOTSET_DYNAMIC_SHARED(shared);
  float2* const turns = reinterpret_cast<float2*>(shared);
  const int64_t t = blockIdx.x, from = t * p.heads * p.head_dim;
  const double position = double(p.positions[t]);
  for (int64_t i = threadIdx.x; i < p.rotary_pairs; i += kThreads) {
    const double frequency = p.frequencies ? double(p.frequencies[i]) : pow(double(p.theta), -double(i) / double(p.rotary_pairs));
    double sine, cosine;
    sincos(position * frequency, &sine, &cosine);
    turns[i] = make_float2(float(cosine), float(sine));
  }
  __syncthreads();
  const bool half = p.pairs == attention_rope_pairs_half;
  // Fewer than 2^27 pairs a token.
  const unsigned pairs = unsigned(p.rotary_pairs), all = unsigned(p.heads) * pairs;
  for (unsigned n = threadIdx.x; n < all; n += kThreads) {
    const unsigned head = n / pairs, i = n % pairs;
    const float2 by = turns[i];
    const int64_t row = from + int64_t(head) * p.head_dim, a = row + (half ? i : 2 * i), b = half ? a + pairs : a + 1;
    float2 x;
    if (whole && !half) x = *reinterpret_cast<const float2*>(p.x + a);
    else x = make_float2(p.x[a], p.x[b]);
    const float2 turned = make_float2(x.x * by.x - x.y * by.y, x.x * by.y + x.y * by.x);
    if (whole && !half) *reinterpret_cast<float2*>(p.out + a) = turned;
    else p.out[a] = turned.x, p.out[b] = turned.y;
  }
  const unsigned rest = unsigned(p.head_dim) - 2 * pairs;
  for (unsigned n = threadIdx.x; n < unsigned(p.heads) * rest; n += kThreads) {
    const int64_t at = from + int64_t(n / rest) * p.head_dim + 2 * pairs + n % rest;
    p.out[at] = p.x[at];
  }
}

}  // namespace

void attention_rope_plan(const attention_rope_params& p, const Device&, KernelPlan& plan) {
  plan.name = "tokens";
  if (p.tokens > kLargestGrid) plan.refusal = "more tokens than a grid has blocks";
}

cudaError_t attention_rope_run(const attention_rope_params& p, const Run& run) {
  const bool whole = (uint64_t(p.head_dim) * 4 | reinterpret_cast<uintptr_t>(p.x) | reinterpret_cast<uintptr_t>(p.out)) % 8 == 0;
  return launch(turn, p.tokens, kThreads, p.rotary_pairs * int64_t(sizeof(float2)), run.stream, p, whole);
}

}  // namespace hotset
