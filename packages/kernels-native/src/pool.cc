#include "pool.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define HOTSET_PAUSE() _mm_pause()
#elif defined(__aarch64__)
#define HOTSET_PAUSE() asm volatile("yield")
#else
#define HOTSET_PAUSE() ((void)0)
#endif

namespace hotset {

namespace {
// 20 to 50 us: bridges the gap between two steps of a decode loop, and is short beside a scheduler's slice.
constexpr int kSpins = 1000;
}  // namespace

Pool& Pool::get() {
  static Pool* pool = new Pool;
  return *pool;
}

void Pool::run(int64_t tasks, int slots, Body body, void* context) {
  if (tasks <= 0) return;
  if (tasks == 1 || slots <= 1 || tasks > 0x7fffffff || busy_.test_and_set(std::memory_order_acquire)) {
    for (int64_t i = 0; i < tasks; i++) body(context, i, 0);
    return;
  }
  grow(slots - 1);
  const uint32_t job = uint32_t(next_.load(std::memory_order_relaxed) >> 32) + 1;
  // Order matters. Who sees the new counter sees no tasks, or the new tasks with all that was stored before them;
  // who still holds the old counter fails to claim, because it has moved.
  tasks_.store(0, std::memory_order_relaxed);
  next_.store(uint64_t(job) << 32, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  body_.store(body, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  slots_.store(slots, std::memory_order_relaxed);
  tasks_.store(uint32_t(tasks), std::memory_order_release);
  epoch_.store(job, std::memory_order_release);
  epoch_.notify_all();
  take(0);
  for (int spin = 0;; spin++) {
    const uint32_t done = done_.load(std::memory_order_acquire);
    if (done == uint32_t(tasks)) break;
    if (spin < kSpins) HOTSET_PAUSE();
    else done_.wait(done, std::memory_order_acquire);
  }
  busy_.clear(std::memory_order_release);
}

void Pool::grow(int workers) {
  while (int(workers_.size()) < workers) {
    const int slot = int(workers_.size()) + 1;
    workers_.emplace_back([this, slot] { work(slot); });
    workers_.back().detach();
  }
}

void Pool::work(int slot) {
  for (uint32_t seen = 0;;) {
    uint32_t epoch = epoch_.load(std::memory_order_acquire);
    for (int spin = 0; epoch == seen && spin < kSpins; spin++) {
      HOTSET_PAUSE();
      epoch = epoch_.load(std::memory_order_acquire);
    }
    if (epoch == seen) {
      epoch_.wait(seen, std::memory_order_acquire);
      continue;
    }
    seen = epoch;
    if (slot < slots_.load(std::memory_order_relaxed)) take(slot);
  }
}

void Pool::take(int slot) {
  for (uint64_t next = next_.load(std::memory_order_acquire);;) {
    const uint32_t tasks = tasks_.load(std::memory_order_acquire);
    const Body body = body_.load(std::memory_order_relaxed);
    void* const context = context_.load(std::memory_order_relaxed);
    if (slot >= slots_.load(std::memory_order_relaxed) || uint32_t(next) >= tasks) {
      // The counter may have moved to a new job since it was read.
      const uint64_t again = next_.load(std::memory_order_acquire);
      if (again == next) return;
      next = again;
      continue;
    }
    if (!next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    body(context, int64_t(uint32_t(next)), slot);
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == tasks) done_.notify_one();
    next = next_.load(std::memory_order_acquire);
  }
}

namespace {
struct Phase {
  const Kernel& kernel;
  Task task;
  Status* statuses;
};
}  // namespace

void run_kernel(const Kernel& kernel, const void* params, char* scratch, int slots, Status* statuses) {
  KernelPlan plan;
  kernel.plan(params, slots, &plan);
  for (int phase = 0; phase < plan.phases; phase++) {
    Phase context = {kernel, {params, scratch, 0, phase, 0, slots, nullptr}, statuses};
    Pool::get().run(
        plan.tasks[phase], slots,
        [](void* pointer, int64_t index, int slot) {
          const Phase& p = *static_cast<const Phase*>(pointer);
          Task task = p.task;
          task.index = index;
          task.slot = slot;
          task.status = p.statuses + slot;
          p.kernel.run(task);
        },
        &context);
  }
}

Status first_fault(const Status* statuses, int slots) {
  Status first;
  for (int i = 0; i < slots; i++) {
    const Status& s = statuses[i];
    if (s.code == status_ok) continue;
    if (first.code == status_ok || s.port < first.port || (s.port == first.port && s.index < first.index)) first = s;
  }
  return first;
}

}  // namespace hotset
