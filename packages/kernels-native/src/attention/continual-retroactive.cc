// attention/continual-retroactive: out_i = AV_i / d_i for each query of the window, with d and AV brought up to date: what the
// leaving key weighed is taken off, what the new one weighs is added; a row whose estimated error grows too large is computed
// exactly, and so is the newest.
//
// A task is a head of a stream. Rows go in vectors of lanes: two logits each, then weights, sums and estimates of a whole vector at
// once, then the values row by row: one pass that reads and writes AV and writes out. f32 relative to whole powers of two.
// Steps are counted in a second phase, since all heads of a stream read them. A step moves 4 window x dim floats, which is
// what bounds it as long as few rows are refused.
#include "../gen/params.h"
#include "continual_rows.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr float kUnit = 0x1p-24f;
constexpr int kRowExtra = 3;

int64_t slot_floats(const attention_continual_retroactive_params& p) { return 2 * round_up(p.window, 16) + 2 * round_up(p.head_dim, 16); }

// A vector of rows in the middle of a step.
struct Lanes {
  alignas(64) float arrives[kLanes], leaves[kLanes], power[kLanes], factor[kLanes], sum[kLanes], error[kLanes];
};

struct Head {
  const attention_continual_retroactive_params& p;
  const int64_t head, dim;
  const Turn turn;
  float *const keys, *const values, *const queries, *const rows, *const out, *const logits;
  const float *const leaving_key, *const leaving_value;
  float error = 0;
  int32_t recomputed = 0;

  float* row(int64_t slot) const { return rows + slot * (dim + kRowExtra); }

  // Weights, sums and estimates of `count` rows from `first` on.
  void update_sums(int64_t first, int64_t count, Lanes& lanes) const {
    for (int j = 0; j < kLanes; j++) {
      const int64_t slot = least(first + j, first + count - 1);
      const float* const query = queries + slot * dim;
      lanes.arrives[j] = row_dot(query, p.key + head * dim, dim) * p.scale;
      lanes.leaves[j] = turn.full ? row_dot(query, leaving_key, dim) * p.scale : 0;
      lanes.power[j] = row(slot)[dim];
      lanes.sum[j] = row(slot)[dim + 1];
      lanes.error[j] = row(slot)[dim + 2];
    }
    f32v in_power, off_power;
    const f32v in_part = split_exp(load(lanes.arrives), in_power), off_part = split_exp(load(lanes.leaves), off_power);
    const f32v power = larger(load(lanes.power), in_power), factor = scale_of(sub(load(lanes.power), power));
    const f32v in = mul(in_part, scale_of(sub(in_power, power)));
    const f32v off = turn.full ? mul(off_part, scale_of(sub(off_power, power))) : zero();
    const f32v before = mul(load(lanes.sum), factor), after = add(sub(before, off), in);
    const f32v added = madd(splat(2 * kUnit), larger(before, off), mul(splat(kUnit), in));
    store(lanes.arrives, in);
    store(lanes.leaves, off);
    store(lanes.power, power);
    store(lanes.factor, factor);
    store(lanes.sum, after);
    store(lanes.error, div(madd(load(lanes.error), before, added), after));
  }

  // Whether all of the row is finite.
  bool update_values(int64_t slot, int64_t place, const Lanes& lanes, int j) const {
    float* const weighted = row(slot);
    float* const answer = out + place * dim;
    const float* const value = p.value + head * dim;
    const f32v factor = splat(lanes.factor[j]), in = splat(lanes.arrives[j]), off = splat(-lanes.leaves[j]), sum = splat(lanes.sum[j]);
    f32v odd = zero();
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
      f32v x = mul(load(weighted + i), factor);
      if (turn.full) x = madd(off, load(leaving_value + i), x);
      x = madd(in, load(value + i), x);
      store(weighted + i, x);
      const f32v y = div(x, sum);
      store(answer + i, y);
      // 0 unless there is a NaN or an infinity.
      odd = madd(y, zero(), odd);
    }
    float rest = reduce_add(odd);
    for (; i < dim; i++) {
      float x = weighted[i] * lanes.factor[j];
      if (turn.full) x -= lanes.leaves[j] * leaving_value[i];
      weighted[i] = x + lanes.arrives[j] * value[i];
      answer[i] = weighted[i] / lanes.sum[j];
      rest += answer[i] * 0;
    }
    if (rest != 0) return false;
    weighted[dim] = lanes.power[j];
    weighted[dim + 1] = lanes.sum[j];
    weighted[dim + 2] = lanes.error[j];
    return true;
  }

  void compute(int64_t slot, int64_t place) {
    float* const weighted = row(slot);
    const RowSum sum = exact_row(queries + slot * dim, keys, values, turn.held, dim, p.scale, logits, weighted);
    const bool sound = divide_row(weighted, sum.sum, dim, out + place * dim);
    if (!sound) memset(weighted, 0, size_t(dim) * sizeof(float));
    weighted[dim] = sound ? sum.power : 0;
    weighted[dim + 1] = sound ? sum.sum : 0;
    weighted[dim + 2] = sound ? 0 : INFINITY;
  }

  void step() {
    Lanes lanes;
    for (int64_t first = 0; first < turn.held; first += kLanes) {
      const int64_t count = least(kLanes, turn.held - first);
      update_sums(first, count, lanes);
      for (int j = 0; j < count; j++) {
        const int64_t slot = first + j, place = slot >= turn.oldest ? slot - turn.oldest : slot - turn.oldest + p.window;
        const bool newest = slot == turn.slot;
        // A sum that cancelled may be anything, so that its estimate is negative or not a number.
        const bool taken = !newest && lanes.sum[j] > 0 && lanes.error[j] < p.tolerance && update_values(slot, place, lanes, j);
        if (!taken) {
          compute(slot, place);
          recomputed += !newest;
        }
        if (row(slot)[dim + 2] > error) error = row(slot)[dim + 2];
      }
    }
  }
};

}  // namespace

void attention_continual_retroactive_plan(const attention_continual_retroactive_params& p, int slots, KernelPlan& plan) {
  plan.name = "heads";
  plan.scratch_bytes = slots * slot_floats(p) * 4;
  plan.phases = p.streams > 0 ? 2 : 0;
  plan.tasks[0] = p.streams * p.heads;
  plan.tasks[1] = 1;
}

void attention_continual_retroactive_task(const attention_continual_retroactive_params& p, const Task& task) {
  if (task.phase == 1) return count_steps(p.steps, p.streams, p.window);
  const int64_t head = task.index, stream = head / p.heads, steps = p.steps[stream], dim = p.head_dim, ring = head * p.window * dim;
  const size_t bytes = size_t(dim) * sizeof(float);
  p.error[head] = 0;
  p.recomputed[head] = 0;
  Turn turn = {};
  if (!turn_of(steps, p.window, turn)) fail(*task.status, attention_continual_retroactive_port_steps, stream, steps);
  memset(p.out + ring + turn.held * dim, 0, size_t(p.window - turn.held) * bytes);
  if (turn.held == 0) return;
  float* const logits = reinterpret_cast<float*>(task.scratch) + task.slot * slot_floats(p);
  float* const leaving_key = logits + 2 * round_up(p.window, 16);
  float* const leaving_value = leaving_key + round_up(dim, 16);
  const int64_t at = ring + turn.slot * dim;
  memcpy(leaving_key, p.key_ring + at, bytes);
  memcpy(leaving_value, p.value_ring + at, bytes);
  memcpy(p.key_ring + at, p.key + head * dim, bytes);
  memcpy(p.value_ring + at, p.value + head * dim, bytes);
  memcpy(p.query_ring + at, p.query + head * dim, bytes);
  Head one = {p, head, dim, turn, p.key_ring + ring, p.value_ring + ring, p.query_ring + ring, p.rows + head * p.window * (dim + kRowExtra), p.out + ring, logits, leaving_key, leaving_value};
  one.step();
  p.error[head] = one.error;
  p.recomputed[head] = one.recomputed;
}

}  // namespace HOTSET_ISA
}  // namespace hotset
