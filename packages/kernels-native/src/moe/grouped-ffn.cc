// moe/grouped-ffn: out[i] = W_down (silu(W_gate x) * (W_up x)) for the rows of each expert.
//
// One task checks the indices and gathers rows of one expert in groups of up to 64; then tasks of 32 rows of weights meet
// every group: gate and up together, then down. Up to 6 rows of numbers meet the weights where they lie, each weight read
// once; more share one widening to f32 of a tile by 512 numbers (64 KiB, the second cache). Sums: expert_rows.h.
// Few rows are bound by the bandwidth of the weights, 3 dim hidden of them an expert; from some 6 rows on by multiply-add.
#include "../gen/params.h"
#include "../simd/exp.h"
#include "expert_rows.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskFloats = 64 << 10;

// Rows of one expert that are computed together: compact rows [first, first + count).
struct Group {
  int32_t slot, first, count;
};

struct Shape {
  int64_t assignments, blocks, dim_pitch, hidden_pitch, pack_tokens;
  bool packed;  // tokens are copied to whole units
  int64_t groups_at, sorted_at, experts_at, slots_at, rows_at, marks_at, x_at, inside_at, own_at, own_bytes, bytes;

  Shape(const moe_grouped_ffn_params& p, int slots) {
    assignments = p.tokens * p.top_k;
    blocks = (p.capacity + p.block_size - 1) / p.block_size;
    dim_pitch = round_up(p.dim, kUnit);
    hidden_pitch = round_up(p.hidden, kTileRows);
    packed = p.dim % kUnit != 0;
    pack_tokens = most(1, kTaskFloats / (p.dim * (p.top_k + 1)));
    int64_t at = 0;
    const auto take = [&](int64_t n) {
      const int64_t here = at;
      at = round_up(at + n, 64);
      return here;
    };
    groups_at = take(64 + assignments * int64_t(sizeof(Group)));
    sorted_at = take(p.capacity * 4);
    experts_at = take(blocks * 4);
    slots_at = take(p.experts * 4);
    rows_at = take(assignments * 4);
    marks_at = take(assignments);
    x_at = take(packed ? p.tokens * dim_pitch * 4 : 0);
    inside_at = take(assignments * hidden_pitch * 4);
    own_at = at;
    // Sums of gate and up, and a widened tile.
    own_bytes = round_up((2 * kGroupRows * kTileRows + kTileRows * kRunUnits * kUnit) * 4, 64);
    bytes = own_at + slots * own_bytes;
  }
};

enum Mark : uint8_t { not_seen = 0, seen = 1, computed = 2 };

struct Ffn {
  const moe_grouped_ffn_params& p;
  const Shape shape;
  const Task& task;

  Ffn(const moe_grouped_ffn_params& params, const Task& t) : p(params), shape(params, t.slots), task(t) {}

  template <class T>
  T* at(int64_t offset) const {
    return reinterpret_cast<T*>(task.scratch + offset);
  }
  int64_t& group_count() const { return *at<int64_t>(shape.groups_at); }
  Group* groups() const { return at<Group>(shape.groups_at + 64); }
  // The assignment of each compact row.
  int32_t* rows() const { return at<int32_t>(shape.rows_at); }
  uint8_t* marks() const { return at<uint8_t>(shape.marks_at); }
  float* inside(int64_t row) const { return at<float>(shape.inside_at) + row * shape.hidden_pitch; }
  const float* token(int64_t t) const { return shape.packed ? at<float>(shape.x_at) + t * shape.dim_pitch : p.x + t * p.dim; }

  // Indices as they are used from here on; -1 for what is not there.
  void check() const {
    memset(marks(), not_seen, size_t(shape.assignments));
    int32_t* const sorted = at<int32_t>(shape.sorted_at);
    for (int64_t i = 0; i < p.capacity; i++) {
      sorted[i] = checked(p.sorted, i, shape.assignments, moe_grouped_ffn_port_sorted);
      if (sorted[i] < 0) continue;
      if (marks()[sorted[i]] != not_seen) {
        fail(*task.status, moe_grouped_ffn_port_sorted, i, sorted[i]);
        sorted[i] = -1;
      } else {
        marks()[sorted[i]] = seen;
      }
    }
    int32_t* const experts = at<int32_t>(shape.experts_at);
    for (int64_t i = 0; i < shape.blocks; i++) experts[i] = checked(p.block_expert, i, p.experts, moe_grouped_ffn_port_block_expert);
    int32_t* const slots = at<int32_t>(shape.slots_at);
    for (int64_t i = 0; i < p.experts; i++) slots[i] = checked(p.expert_slot, i, p.slots, moe_grouped_ffn_port_expert_slot);
    gather(sorted, experts, slots);
  }

  int32_t checked(const int32_t* values, int64_t i, int64_t below, int32_t port) const {
    const int32_t value = int32_t(read_once(reinterpret_cast<const uint32_t*>(values) + i));
    if (value >= 0 && value < below) return value;
    if (value != -1) fail(*task.status, port, i, value);
    return -1;
  }

  void gather(const int32_t* sorted, const int32_t* experts, const int32_t* slots) const {
    int64_t count = 0;
    int32_t row = 0;
    for (int64_t block = 0; block < shape.blocks; block++) {
      const int32_t slot = experts[block] < 0 ? -1 : slots[experts[block]];
      if (slot < 0) continue;
      for (int64_t i = block * p.block_size; i < least(p.capacity, (block + 1) * p.block_size); i++) {
        if (sorted[i] < 0) continue;
        if (count == 0 || groups()[count - 1].slot != slot || groups()[count - 1].count == kGroupRows) groups()[count++] = {slot, row, 0};
        groups()[count - 1].count++;
        marks()[sorted[i]] = computed;
        rows()[row++] = sorted[i];
      }
    }
    group_count() = count;
  }

  // Tokens in whole units; zeros for assignments that nothing computes.
  void prepare() const {
    const int64_t first = task.index * shape.pack_tokens, end = least(p.tokens, first + shape.pack_tokens);
    for (int64_t t = first; t < end; t++) {
      if (shape.packed) {
        float* const to = at<float>(shape.x_at) + t * shape.dim_pitch;
        memcpy(to, p.x + t * p.dim, size_t(p.dim) * sizeof(float));
        for (int64_t i = p.dim; i < shape.dim_pitch; i++) to[i] = 0;
      }
      for (int64_t i = t * p.top_k; i < (t + 1) * p.top_k; i++)
        if (marks()[i] != computed) memset(p.out + i * p.dim, 0, size_t(p.dim) * sizeof(float));
    }
  }

  template <class T>
  WeightTile tile(const void* weights, int64_t slot, int64_t rows_of, int64_t width) const {
    const int64_t row_bytes = ExpertUnit<T>::bytes == 2 + kUnit ? (width + kUnit - 1) / kUnit * ExpertUnit<T>::bytes : width * (ExpertUnit<T>::bytes / kUnit);
    const int64_t first = task.index * kTileRows;
    return {static_cast<const char*>(weights) + (slot * rows_of + first) * row_bytes, row_bytes, int(least(kTileRows, rows_of - first)), width};
  }

  // silu(gate x) * (up x) of 32 hidden components, for every row.
  template <class T>
  void up() const {
    float* const gates = at<float>(shape.own_at + task.slot * shape.own_bytes);
    float* const ups = gates + kGroupRows * kTileRows;
    float* const wide = ups + kGroupRows * kTileRows;
    for (int64_t g = 0; g < group_count(); g++) {
      const Group group = groups()[g];
      const float* x[kGroupRows];
      for (int i = 0; i < group.count; i++) x[i] = token(rows()[group.first + i] / p.top_k);
      products<T>(tile<T>(p.gate, group.slot, p.hidden, p.dim), x, group.count, gates, wide);
      products<T>(tile<T>(p.up, group.slot, p.hidden, p.dim), x, group.count, ups, wide);
      for (int i = 0; i < group.count; i++)
        for (int j = 0; j < kTileRows; j += kLanes)
          store(inside(group.first + i) + task.index * kTileRows + j, mul(silu(load(gates + i * kTileRows + j)), load(ups + i * kTileRows + j)));
    }
  }

  // 32 components of the result, for every row.
  template <class T>
  void down() const {
    float* const sums = at<float>(shape.own_at + task.slot * shape.own_bytes);
    float* const wide = sums + 2 * kGroupRows * kTileRows;
    for (int64_t g = 0; g < group_count(); g++) {
      const Group group = groups()[g];
      const float* x[kGroupRows];
      for (int i = 0; i < group.count; i++) x[i] = inside(group.first + i);
      const WeightTile weights = tile<T>(p.down, group.slot, p.dim, p.hidden);
      products<T>(weights, x, group.count, sums, wide);
      for (int i = 0; i < group.count; i++)
        memcpy(p.out + rows()[group.first + i] * p.dim + task.index * kTileRows, sums + i * kTileRows, size_t(weights.n) * sizeof(float));
    }
  }

  // g / (1 + exp(-g)); 0 from -87 down, where exp's own bound would show; a NaN stays.
  static f32v silu(f32v g) {
    const f32v bounded = larger(splat(-3e38f), g);
    const f32v value = div(g, add(splat(1), exp(sub(zero(), bounded))));
    return select_inside(bounded, -INFINITY, -87, zero(), value);
  }
};

template <class T>
void run_phase(const Ffn& ffn, int phase) {
  if (phase == 2) ffn.up<T>();
  else ffn.down<T>();
}

}  // namespace

void moe_grouped_ffn_plan(const moe_grouped_ffn_params& p, int slots, KernelPlan& plan) {
  const Shape shape(p, slots);
  plan.name = "tiles";
  plan.scratch_bytes = shape.bytes;
  plan.phases = 4;
  plan.tasks[0] = 1;
  plan.tasks[1] = (p.tokens + shape.pack_tokens - 1) / shape.pack_tokens;
  plan.tasks[2] = shape.assignments ? shape.hidden_pitch / kTileRows : 0;
  plan.tasks[3] = shape.assignments ? (p.dim + kTileRows - 1) / kTileRows : 0;
}

void moe_grouped_ffn_task(const moe_grouped_ffn_params& p, const Task& task) {
  const Ffn ffn(p, task);
  if (task.phase == 0) ffn.check();
  else if (task.phase == 1) ffn.prepare();
  else if (p.gate_dtype == dtype_f32) run_phase<float>(ffn, task.phase);
  else if (p.gate_dtype == dtype_f16) run_phase<f16>(ffn, task.phase);
  else run_phase<q8>(ffn, task.phase);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
