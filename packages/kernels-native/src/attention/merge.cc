// attention/merge: out = sum_p exp(lse_p - lse) out_p, lse = ln sum_p exp(lse_p), row by row.
//
// The largest lse is taken out first; weights and sums are f32, the logarithm f64. Parts are added in their order, so
// the bits do not depend on the threads. A task is 256 KiB of parts: 15 us of one core's bandwidth, which bounds it.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/exp.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskFloats = 64 << 10;

int64_t task_rows(const attention_merge_params& p) {
  return most(1, kTaskFloats / (most(1, p.parts) * (p.value_dim + 1)));
}

void merge_row(const attention_merge_params& p, int64_t row) {
  float largest = -INFINITY;
  for (int64_t part = 0; part < p.parts; part++) {
    const float lse = p.part_lse[part * p.rows + row];
    if (lse > largest) largest = lse;
  }
  // NaNs are never the largest; they come in through their weights.
  const float base = largest == -INFINITY ? 0 : largest;
  float* const out = p.out + row * p.value_dim;
  memset(out, 0, size_t(p.value_dim) * sizeof(float));
  const int64_t whole = p.value_dim / kLanes * kLanes;
  float sum = 0;
  for (int64_t part = 0; part < p.parts; part++) {
    const float lse = p.part_lse[part * p.rows + row];
    if (lse == -INFINITY) continue;
    const float weight = exp(lse - base);
    const float* const value = p.part_out + (part * p.rows + row) * p.value_dim;
    sum += weight;
    for (int64_t i = 0; i < whole; i += kLanes) store(out + i, madd(splat(weight), load(value + i), load(out + i)));
    for (int64_t i = whole; i < p.value_dim; i++) out[i] += weight * value[i];
  }
  if (sum == 0) {
    p.lse[row] = -INFINITY;
    return;
  }
  for (int64_t i = 0; i < p.value_dim; i++) out[i] /= sum;
  p.lse[row] = float(double(base) + ln(double(sum)));
}

}  // namespace

void attention_merge_plan(const attention_merge_params& p, int, KernelPlan& plan) {
  plan.name = "rows";
  plan.phases = p.rows > 0;
  plan.tasks[0] = (p.rows + task_rows(p) - 1) / task_rows(p);
}

void attention_merge_task(const attention_merge_params& p, const Task& task) {
  const int64_t each = task_rows(p), first = task.index * each;
  for (int64_t row = first; row < first + each && row < p.rows; row++) merge_row(p, row);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
