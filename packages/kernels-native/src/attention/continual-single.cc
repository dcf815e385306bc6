// attention/continual-single: the newest key and value go into a stream's ring, and out = sum_t softmax(scale q k)_t v_t,
// lse = ln sum_t exp(scale q k_t) over it.
//
// A task is a head of a stream: its logits, then their weights relative to the largest power of two, then the values, 4
// vectors of sums at a time. f32, the logarithm f64. Steps are counted in a second phase, since all heads of a stream read
// them. Bound by memory: the window's keys and values are read once.
#include "../gen/params.h"
#include "../simd/exp.h"
#include "continual_rows.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

// Logits and their powers.
int64_t slot_bytes(const attention_continual_single_params& p) { return 8 * round_up(p.window, 16); }

}  // namespace

void attention_continual_single_plan(const attention_continual_single_params& p, int slots, KernelPlan& plan) {
  plan.name = "heads";
  plan.scratch_bytes = slots * slot_bytes(p);
  plan.phases = p.streams > 0 ? 2 : 0;
  plan.tasks[0] = p.streams * p.heads;
  plan.tasks[1] = 1;
}

void attention_continual_single_task(const attention_continual_single_params& p, const Task& task) {
  if (task.phase == 1) return count_steps(p.steps, p.streams, p.window);
  const int64_t head = task.index, stream = head / p.heads, steps = p.steps[stream], dim = p.head_dim;
  float* const out = p.out + head * dim;
  Turn turn;
  if (!turn_of(steps, p.window, turn)) {
    fail(*task.status, attention_continual_single_port_steps, stream, steps);
    memset(out, 0, size_t(dim) * sizeof(float));
    p.lse[head] = -INFINITY;
    return;
  }
  float* const keys = p.key_ring + head * p.window * dim;
  float* const values = p.value_ring + head * p.window * dim;
  memcpy(keys + turn.slot * dim, p.key + head * dim, size_t(dim) * sizeof(float));
  memcpy(values + turn.slot * dim, p.value + head * dim, size_t(dim) * sizeof(float));
  float* const logits = reinterpret_cast<float*>(task.scratch + task.slot * slot_bytes(p));
  const RowSum row = exact_row(p.query + head * dim, keys, values, turn.held, dim, p.scale, logits, out);
  divide_row(out, row.sum, dim, out);
  p.lse[head] = float(double(row.power) * 0.69314718055994531 + ln(double(row.sum)));
}

}  // namespace HOTSET_ISA
}  // namespace hotset
