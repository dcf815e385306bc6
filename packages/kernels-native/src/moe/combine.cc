// moe/combine: out[t] = sum_k weights[t][k] rows[t][k], in the order of k.
//
// Four vectors of sums stay in registers while the rows of a token pass, so each row is read and each sum written once. A
// task is 64 Ki floats of rows: 15 us of one core's bandwidth, which bounds it.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskFloats = 64 << 10;
constexpr int kVectors = 4;

int64_t task_tokens(const moe_combine_params& p) { return most(1, kTaskFloats / (p.top_k * p.dim)); }

template <int V>
void add_rows(const moe_combine_params& p, int64_t t, int64_t at) {
  f32v sum[V];
  for (int v = 0; v < V; v++) sum[v] = zero();
  const float* row = p.rows + t * p.top_k * p.dim + at;
  for (int64_t k = 0; k < p.top_k; k++, row += p.dim) {
    const float weight = p.weights[t * p.top_k + k];
    if (weight == 0) continue;
    for (int v = 0; v < V; v++) sum[v] = madd(splat(weight), load(row + v * kLanes), sum[v]);
  }
  for (int v = 0; v < V; v++) store(p.out + t * p.dim + at + v * kLanes, sum[v]);
}

void token(const moe_combine_params& p, int64_t t) {
  int64_t at = 0;
  for (; at + kVectors * kLanes <= p.dim; at += kVectors * kLanes) add_rows<kVectors>(p, t, at);
  for (; at + kLanes <= p.dim; at += kLanes) add_rows<1>(p, t, at);
  for (; at < p.dim; at++) {
    float sum = 0;
    for (int64_t k = 0; k < p.top_k; k++) {
      const float weight = p.weights[t * p.top_k + k];
      if (weight != 0) sum += weight * p.rows[(t * p.top_k + k) * p.dim + at];
    }
    p.out[t * p.dim + at] = sum;
  }
}

}  // namespace

void moe_combine_plan(const moe_combine_params& p, int, KernelPlan& plan) {
  plan.name = "rows";
  plan.phases = p.tokens > 0;
  plan.tasks[0] = (p.tokens + task_tokens(p) - 1) / task_tokens(p);
}

void moe_combine_task(const moe_combine_params& p, const Task& task) {
  const int64_t each = task_tokens(p), first = task.index * each;
  for (int64_t t = first; t < first + each && t < p.tokens; t++) token(p, t);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
