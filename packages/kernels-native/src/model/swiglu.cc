// model/swiglu: out = silu(gate) up, silu(x) = x / (1 + exp(-x)), component by component.
//
// As x exp(min(x, 0)) / (1 + exp(-|x|)): no exponential overflows, and what is 0 for large -x stays so. f32; the rest of
// the last vector is copied out. A task is 16384 components, 192 KiB: bound by the two exponentials, about 3 cycles a
// component with 8 lanes.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/exp.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskFloats = 16 << 10;

inline f32v gated(f32v x, f32v up) {
  const f32v less = exp(smaller(splat(0), x)), size = exp(smaller(x, sub(zero(), x)));
  return mul(mul(x, div(less, add(splat(1), size))), up);
}

}  // namespace

void model_swiglu_plan(const model_swiglu_params& p, int, KernelPlan& plan) {
  const int64_t all = p.tokens * p.dim;
  plan.name = "vectors";
  plan.phases = all > 0;
  plan.tasks[0] = (all + kTaskFloats - 1) / kTaskFloats;
}

void model_swiglu_task(const model_swiglu_params& p, const Task& task) {
  int64_t i = task.index * kTaskFloats;
  const int64_t end = least(i + kTaskFloats, p.tokens * p.dim);
  for (; i + kLanes <= end; i += kLanes) store(p.out + i, gated(load(p.gate + i), load(p.up + i)));
  if (i == end) return;
  float x[kLanes] = {}, up[kLanes] = {};
  memcpy(x, p.gate + i, size_t(end - i) * sizeof(float));
  memcpy(up, p.up + i, size_t(end - i) * sizeof(float));
  store(x, gated(load(x), load(up)));
  memcpy(p.out + i, x, size_t(end - i) * sizeof(float));
}

}  // namespace HOTSET_ISA
}  // namespace hotset
