// model/rms-norm: out = weight x / sqrt(mean(x^2) + epsilon), token by token.
//
// Two passes over a token's vector, the second from the cache: 4 running vectors of squares, then the products. Sums
// in f32, the square root in f64. A task is 128 KiB of vectors: bound by bandwidth.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskFloats = 32 << 10;

int64_t task_tokens(const model_rms_norm_params& p) { return most(1, kTaskFloats / p.dim); }

void normalise(const model_rms_norm_params& p, int64_t token) {
  const float* const x = p.x + token * p.dim;
  float* const out = p.out + token * p.dim;
  f32v sum[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= p.dim; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const f32v v = load(x + i + j * kLanes);
      sum[j] = madd(v, v, sum[j]);
    }
  for (; i + kLanes <= p.dim; i += kLanes) sum[0] = madd(load(x + i), load(x + i), sum[0]);
  float squares = reduce_add(add(add(sum[0], sum[1]), add(sum[2], sum[3])));
  for (; i < p.dim; i++) squares += x[i] * x[i];
  const float scale = float(1 / __builtin_sqrt(double(squares) / double(p.dim) + double(p.epsilon)));
  for (i = 0; i + kLanes <= p.dim; i += kLanes) store(out + i, mul(load(p.weight + i), mul(load(x + i), splat(scale))));
  for (; i < p.dim; i++) out[i] = p.weight[i] * (x[i] * scale);
}

}  // namespace

void model_rms_norm_plan(const model_rms_norm_params& p, int, KernelPlan& plan) {
  plan.name = "tokens";
  plan.phases = p.tokens > 0;
  plan.tasks[0] = (p.tokens + task_tokens(p) - 1) / task_tokens(p);
}

void model_rms_norm_task(const model_rms_norm_params& p, const Task& task) {
  const int64_t each = task_tokens(p), first = task.index * each;
  for (int64_t token = first; token < first + each && token < p.tokens; token++) normalise(p, token);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
