// The process's thread pool: persistent workers, and the calling thread takes part.
//
// Tasks are claimed one by one from a counter, so a thread that is late or descheduled takes fewer; a job ends when
// its tasks are done, not when every worker has shown up, so cores held by other processes cost their share and no
// more. When the pool is at work for another caller, the job runs on the calling thread alone: nobody waits.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "kernel.h"

namespace hotset {

class Pool {
 public:
  static Pool& get();

  // `body(context, task, slot)` for every task below `tasks`, on at most `slots` threads; the caller is slot 0.
  using Body = void (*)(void* context, int64_t task, int slot);
  void run(int64_t tasks, int slots, Body body, void* context);

  ~Pool() = delete;  // workers live as long as the process

 private:
  Pool() = default;
  void grow(int workers);
  void work(int slot);
  void take(int slot);

  std::atomic_flag busy_;
  std::vector<std::thread> workers_;
  // The job at hand. The counter's high half is the job's number: a late worker cannot take a task of the next one.
  alignas(64) std::atomic<uint64_t> next_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<uint32_t> tasks_{0};
  std::atomic<int> slots_{1};
  std::atomic<Body> body_{nullptr};
  std::atomic<void*> context_{nullptr};
};

// Runs all phases of a kernel. `statuses [slots]`; the scratch is as large as the plan says.
void run_kernel(const Kernel& kernel, const void* params, char* scratch, int slots, Status* statuses);

// The fault to report: the one at the lowest port and index.
Status first_fault(const Status* statuses, int slots);

}  // namespace hotset
