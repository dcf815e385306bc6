// What a kernel is: a fixed list of phases, each a number of independent tasks. `plan` is a pure function of the
// parameters; tasks of a phase may run in any order and on any thread; phases run one after the other.
// Nothing here allocates, throws or knows Node, so that the case runner links the same objects.
#pragma once
#include <cstdint>

namespace hotset {

constexpr int kMaxPhases = 4;

struct KernelPlan {
  const char* name;       // which kernel this shape gets, for plan.kernel
  const char* refusal;    // why it cannot run this, or nullptr
  int64_t scratch_bytes;  // 64-byte aligned memory, shared by all tasks; never shrinks when sizes grow
  int phases;
  int64_t tasks[kMaxPhases];
};

enum StatusCode : int32_t { status_ok = 0, status_index = 1, status_memory = 2 };

// The first fault of one thread slot.
struct Status {
  int32_t code = status_ok;
  int32_t port = 0;
  int64_t index = 0;
  int64_t value = 0;
};

// Internal linkage, here and in every header that kernels include: an inline function with one name for all
// instruction sets would let the linker keep the AVX-512 copy for everyone.
static inline void fail(Status& status, int32_t port, int64_t index, int64_t value) {
  if (status.code != status_ok) return;
  status.code = status_index;
  status.port = port;
  status.index = index;
  status.value = value;
}

// Arithmetic of sizes and tasks.
static inline int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Exactly one load, so that what was compared is what is used, even while another thread writes it.
static inline uint32_t read_once(const uint32_t* word) { return *static_cast<const volatile uint32_t*>(word); }

struct Task {
  const void* params;
  char* scratch;
  int64_t index;
  int phase;
  int slot;   // which thread, below slots
  int slots;  // as given to plan
  Status* status;
};

// Whether a kernel that streams memory should ask for lines ahead: so on Intel processors.
extern const bool prefetch_helps;

// One row of an instruction set's table.
struct Kernel {
  const char* symbol;
  int64_t params_bytes;
  int tensors;
  void (*plan)(const void* params, int slots, KernelPlan* out);
  void (*run)(const Task& task);
};

}  // namespace hotset
