// Kernels on the CPU: a fiber per thread of a block, one block after another. See emulate.h.
// A fiber runs until it waits at a barrier or for its warp; the scheduler then goes on with the next one that may run.
#include "emulate.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "emulate_state.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

// Saves the registers that a call keeps on the stack, and the stack itself; goes on where `to` was saved.
extern "C" void hotset_switch_fiber(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.globl hotset_switch_fiber
.hidden hotset_switch_fiber
.type hotset_switch_fiber,@function
hotset_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size hotset_switch_fiber,.-hotset_switch_fiber
)");
constexpr int kSavedWords = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.globl hotset_switch_fiber
.hidden hotset_switch_fiber
.type hotset_switch_fiber,%function
hotset_switch_fiber:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size hotset_switch_fiber,.-hotset_switch_fiber
)");
#else
#error "The emulation of CUDA knows x86-64 and aarch64."
#endif

namespace hotset::emulated {

Thread* thread;
dim3 block_index, block_size, grid_size;

namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kGuardBytes = 256;
constexpr int kMostThreads = 1024;

enum State { state_ready, state_at_barrier, state_in_warp, state_done };

struct Copy {
  void* to;
  const void* from;
  int bytes;
  int group;
};

struct Fiber : Thread {
  std::vector<Copy> copies;
  int groups;
  State state;
  void* stack_pointer;
  const char* file;
  int line;
};

struct Warp {
  int arrived;
  int line;
  unsigned turn;
  Slot slots[2][32];
};

// One block at a time, whoever launches.
std::recursive_mutex one_launch;
Fiber fibers[kMostThreads];
Warp warps[kMostThreads / 32];
char* stacks;
void* scheduler;
int threads_of_block, arrived, done;
char* shared;
void (*body)(const void*);
const void* closure;

[[noreturn]] void end(const char* problem, const Fiber& a, const Fiber& b) {
  std::fprintf(stderr, "hotset emulation: %s: block %u, thread %u (%s:%d) and thread %u (%s:%d)\n", problem, block_index.x, a.index.x, a.file, a.line, b.index.x, b.file, b.line);
  std::abort();
}

Fiber& self() { return *static_cast<Fiber*>(thread); }
const Fiber& some(State state) {
  for (int i = 0; i < threads_of_block; i++)
    if (fibers[i].state == state) return fibers[i];
  return fibers[0];
}

void wait(State state) {
  Fiber& fiber = self();
  fiber.state = state;
  hotset_switch_fiber(&fiber.stack_pointer, scheduler);
}

void enter() {
  body(closure);
  Fiber& fiber = self();
  if (arrived > 0) end("a thread returned while others wait at a barrier", fiber, some(state_at_barrier));
  if (warps[fiber.index.x / 32].arrived > 0) end("a lane returned while its warp waits", fiber, some(state_in_warp));
  if (!fiber.copies.empty()) end("a thread returned before its copies were done", fiber, fiber);
  done++;
  fiber.state = state_done;
  hotset_switch_fiber(&fiber.stack_pointer, scheduler);
  std::abort();
}

void start(int i) {
  Fiber& fiber = fibers[i];
  fiber.index = {unsigned(i), 0, 0};
  fiber.lane = i % 32;
  fiber.state = state_ready;
  fiber.file = "start";
  fiber.line = 0;
  fiber.copies.clear();
  fiber.groups = 0;
  void** top = reinterpret_cast<void**>(stacks + size_t(i + 1) * kStackBytes);
#if defined(__SANITIZE_ADDRESS__)
  // The last fiber here never left `enter`.
  ASAN_UNPOISON_MEMORY_REGION(reinterpret_cast<char*>(top) - 8192, 8192);
#endif
#if defined(__x86_64__)
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&enter);
  for (int w = 0; w < kSavedWords; w++) *--top = nullptr;
#else
  for (int w = 0; w < 20; w++) *--top = nullptr;
  top[11] = reinterpret_cast<void*>(&enter);
#endif
  fiber.stack_pointer = top;
}

void run_block(bool backward) {
  arrived = done = 0;
  for (int i = 0; i < threads_of_block; i++) start(i);
  for (int i = 0; i < threads_of_block / 32; i++) warps[i].arrived = 0;
  while (done < threads_of_block) {
    bool progress = false;
    for (int n = 0; n < threads_of_block; n++) {
      Fiber& fiber = fibers[backward ? threads_of_block - 1 - n : n];
      if (fiber.state != state_ready) continue;
      progress = true;
      thread = &fiber;
      hotset_switch_fiber(&scheduler, fiber.stack_pointer);
    }
    if (!progress) end("threads wait for each other", some(state_at_barrier), some(state_in_warp));
  }
}

// Exactly so many bytes where a sanitizer watches, else with a guard behind them.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGuard = 0;
#else
constexpr size_t kGuard = kGuardBytes;
#endif

bool backward_order() {
  const char* const order = std::getenv("HOTSET_EMULATED_ORDER");
  return order && !strcmp(order, "backward");
}

}  // namespace

char* shared_memory() { return shared; }

void sync_block(const char* file, int line) {
  Fiber& fiber = self();
  fiber.file = file;
  fiber.line = line;
  if (done > 0) end("a thread waits at a barrier that another has returned before", fiber, some(state_done));
  if (arrived > 0) {
    const Fiber& other = some(state_at_barrier);
    if (other.line != line || strcmp(other.file, file)) end("different barriers", fiber, other);
  }
  if (++arrived < threads_of_block) return wait(state_at_barrier);
  arrived = 0;
  for (int i = 0; i < threads_of_block; i++)
    if (fibers[i].state == state_at_barrier) fibers[i].state = state_ready;
}

const Slot* exchange(int line, const Slot& mine) {
  Fiber& fiber = self();
  const int first = int(fiber.index.x) / 32 * 32;
  Warp& warp = warps[first / 32];
  const Slot* const slots = warp.slots[warp.turn & 1];
  fiber.line = line;
  if (warp.arrived > 0 && warp.line != line) end("lanes in different operations", fiber, some(state_in_warp));
  warp.line = line;
  warp.slots[warp.turn & 1][fiber.lane] = mine;
  if (++warp.arrived < 32) {
    wait(state_in_warp);
  } else {
    warp.arrived = 0;
    warp.turn++;
    for (int i = first; i < first + 32; i++)
      if (fibers[i].state == state_in_warp) fibers[i].state = state_ready;
  }
  return slots;
}

void copy_later(void* to, const void* from, int bytes) {
  Fiber& fiber = self();
  if (uintptr_t(to) % unsigned(bytes) || uintptr_t(from) % unsigned(bytes)) end("a copy off its alignment", fiber, fiber);
  fiber.copies.push_back({to, from, bytes, fiber.groups});
}
void copies_commit() { self().groups++; }
void copies_wait(int groups) {
  Fiber& fiber = self();
  size_t kept = 0;
  for (const Copy& copy : fiber.copies) {
    if (copy.group >= fiber.groups - groups) fiber.copies[kept++] = copy;
    else if (copy.from) memcpy(copy.to, copy.from, size_t(copy.bytes));
    else memset(copy.to, 0, size_t(copy.bytes));
  }
  fiber.copies.resize(kept);
}

cudaError_t launch_body(int64_t blocks, int threads, int64_t shared_bytes, void (*run)(const void*), const void* with) {
  const std::lock_guard<std::recursive_mutex> lock(one_launch);
  const cudaError_t error = before_launch();
  if (error != cudaSuccess) return error;
  if (threads < 32 || threads > kMostThreads || threads % 32 || shared_bytes < 0 || shared_bytes > most_shared_bytes()) return record(cudaErrorInvalidConfiguration);
  if (!stacks) stacks = static_cast<char*>(std::aligned_alloc(4096, kMostThreads * kStackBytes));
  const size_t bytes = size_t(shared_bytes) + kGuard;
  void* block = nullptr;
  if (!stacks || posix_memalign(&block, 128, bytes ? bytes : 1)) return record(cudaErrorMemoryAllocation);
  shared = static_cast<char*>(block);
  body = run;
  closure = with;
  threads_of_block = threads;
  block_size = dim3(unsigned(threads));
  grid_size = dim3(unsigned(blocks));
  const bool backward = backward_order();
  for (int64_t i = 0; i < blocks; i++) {
    block_index = dim3(unsigned(i), 0, 0);
    // NaN, whatever is read from it.
    memset(shared, 0xff, bytes);
    run_block(backward);
    for (size_t j = 0; j < kGuard; j++)
      if (shared[size_t(shared_bytes) + j] != char(0xff)) end("a write behind the shared memory", fibers[0], fibers[0]);
  }
  std::free(block);
  shared = nullptr;
  thread = nullptr;
  return cudaSuccess;
}

}  // namespace hotset::emulated
