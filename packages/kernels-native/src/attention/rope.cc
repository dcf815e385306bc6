// attention/rope: turns pairs of components by position * frequency_i.
//
// The sines and cosines of a token are computed once, in f64, for all its heads, and rounded to f32. Rotations are in
// f32. Interleaved pairs go two at a time by scalar code: at 64 pairs a head the 128 sines and cosines of a token cost as
// much as the turning of 8 heads. A task is 32 KiB of heads.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

// glibc 2.29 has a pow that differs in how it reports errors; the older one is everywhere where Node is.
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver pow, pow@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver pow, pow@GLIBC_2.17");
#endif

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskFloats = 8 << 10;

int64_t task_tokens(const attention_rope_params& p) { return most(1, kTaskFloats / (p.heads * p.head_dim)); }
// Frequencies in f64, then cosines and sines in f32.
int64_t slot_bytes(const attention_rope_params& p) { return round_up(p.rotary_pairs * 16, 64); }

void turn_interleaved(const attention_rope_params& p, const float* x, const float* cosines, const float* sines, float* out) {
  for (int64_t i = 0; i < p.rotary_pairs; i++) {
    const float a = x[2 * i], b = x[2 * i + 1];
    out[2 * i] = a * cosines[i] - b * sines[i];
    out[2 * i + 1] = a * sines[i] + b * cosines[i];
  }
}

void turn_halves(const attention_rope_params& p, const float* x, const float* cosines, const float* sines, float* out) {
  const int64_t n = p.rotary_pairs;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const f32v a = load(x + i), b = load(x + n + i), c = load(cosines + i), s = load(sines + i);
    store(out + i, sub(mul(a, c), mul(b, s)));
    store(out + n + i, madd(a, s, mul(b, c)));
  }
  for (; i < n; i++) {
    const float a = x[i], b = x[n + i];
    out[i] = a * cosines[i] - b * sines[i];
    out[n + i] = a * sines[i] + b * cosines[i];
  }
}

}  // namespace

void attention_rope_plan(const attention_rope_params& p, int slots, KernelPlan& plan) {
  plan.name = "tokens";
  plan.scratch_bytes = slots * slot_bytes(p);
  plan.phases = p.tokens > 0;
  plan.tasks[0] = (p.tokens + task_tokens(p) - 1) / task_tokens(p);
}

void attention_rope_task(const attention_rope_params& p, const Task& task) {
  const int64_t each = task_tokens(p), first = task.index * each, end = least(first + each, p.tokens);
  double* const frequencies = reinterpret_cast<double*>(task.scratch + task.slot * slot_bytes(p));
  float* const cosines = reinterpret_cast<float*>(frequencies + p.rotary_pairs);
  float* const sines = cosines + p.rotary_pairs;
  for (int64_t i = 0; i < p.rotary_pairs; i++)
    frequencies[i] = p.frequencies ? double(p.frequencies[i]) : ::pow(double(p.theta), -double(i) / double(p.rotary_pairs));
  for (int64_t token = first; token < end; token++) {
    for (int64_t i = 0; i < p.rotary_pairs; i++) {
      const double angle = double(p.positions[token]) * frequencies[i];
      cosines[i] = float(::cos(angle));
      sines[i] = float(::sin(angle));
    }
    for (int64_t h = token * p.heads; h < (token + 1) * p.heads; h++) {
      const float* const x = p.x + h * p.head_dim;
      float* const out = p.out + h * p.head_dim;
      if (p.pairs == attention_rope_pairs_half) turn_halves(p, x, cosines, sines, out);
      else turn_interleaved(p, x, cosines, sines, out);
      memcpy(out + 2 * p.rotary_pairs, x + 2 * p.rotary_pairs, size_t(p.head_dim - 2 * p.rotary_pairs) * sizeof(float));
    }
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
