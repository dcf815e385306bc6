// moe/align: assignments in the order of their experts, each expert's filled up to whole blocks.
//
// A stable counting sort. Tasks of 4096 assignments count their experts and copy the ids, checked once; one task turns the
// counts into places, in the order of experts and tasks, and fills up the blocks; then each task puts its own in place. So the
// order does not depend on the threads. Bound by memory: 12 bytes an assignment, and a count per expert and task.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskIds = 4096;

struct Align {
  const moe_align_params& p;
  const Task& task;
  const int64_t count, tasks;
  int32_t* const places;  // [tasks][experts]: counts, then where the next one goes
  int32_t* const ids;     // [count]: checked

  static int64_t tasks_of(const moe_align_params& p) { return most(1, (p.tokens * p.top_k + kTaskIds - 1) / kTaskIds); }
  static int64_t bytes(const moe_align_params& p) { return (tasks_of(p) * p.experts + p.tokens * p.top_k) * 4; }

  Align(const moe_align_params& params, const Task& t)
      : p(params), task(t), count(p.tokens * p.top_k), tasks(tasks_of(p)), places(reinterpret_cast<int32_t*>(t.scratch)), ids(places + tasks * p.experts) {}

  void count_experts() const {
    int32_t* const counts = places + task.index * p.experts;
    memset(counts, 0, size_t(p.experts) * sizeof(int32_t));
    const int64_t end = least(count, (task.index + 1) * kTaskIds);
    for (int64_t i = task.index * kTaskIds; i < end; i++) {
      const int32_t id = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.ids) + i));
      const bool there = id >= 0 && id < p.experts;
      if (!there && id != -1) fail(*task.status, moe_align_port_ids, i, id);
      ids[i] = there ? id : -1;
      if (there) counts[id]++;
    }
  }

  void place_experts() const {
    const int64_t blocks = (p.capacity + p.block_size - 1) / p.block_size;
    int64_t row = 0;
    for (int64_t e = 0; e < p.experts; e++) {
      const int64_t first = row;
      for (int64_t t = 0; t < tasks; t++) {
        const int32_t n = places[t * p.experts + e];
        places[t * p.experts + e] = int32_t(row);
        row += n;
      }
      const int64_t end = first + round_up(row - first, p.block_size);
      for (int64_t block = first / p.block_size; block < end / p.block_size; block++) p.block_expert[block] = int32_t(e);
      for (; row < end; row++) p.sorted[row] = -1;
    }
    *p.total = int32_t(row);
    for (int64_t block = row / p.block_size; block < blocks; block++) p.block_expert[block] = -1;
    for (; row < p.capacity; row++) p.sorted[row] = -1;
  }

  void put() const {
    int32_t* const next = places + task.index * p.experts;
    const int64_t end = least(count, (task.index + 1) * kTaskIds);
    for (int64_t i = task.index * kTaskIds; i < end; i++)
      if (ids[i] >= 0) p.sorted[next[ids[i]]++] = int32_t(i);
  }
};

}  // namespace

void moe_align_plan(const moe_align_params& p, int, KernelPlan& plan) {
  plan.name = "counts";
  plan.scratch_bytes = Align::bytes(p);
  plan.phases = 3;
  plan.tasks[0] = plan.tasks[2] = Align::tasks_of(p);
  plan.tasks[1] = 1;
}

void moe_align_task(const moe_align_params& p, const Task& task) {
  const Align align(p, task);
  if (task.phase == 0) align.count_experts();
  else if (task.phase == 1) align.place_experts();
  else align.put();
}

}  // namespace HOTSET_ISA
}  // namespace hotset
