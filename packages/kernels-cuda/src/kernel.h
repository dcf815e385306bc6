// What a CUDA kernel is: `plan`, a pure function of the parameters and the device, and `run`, which queues launches
// on a stream and returns. The parameter structs are those of the CPU (gen/params.h), with device addresses.
// Nothing here knows Node, so that the case runner links the same objects; compiled with HOTSET_CUDA_EMULATED the same
// sources run on the CPU, a fiber per thread, for tests on machines without a GPU.
#pragma once
#include <cstdint>

#include "runtime.h"

namespace hotset {

// What kernels size themselves by.
struct Device {
  int arch;              // 90 is compute capability 9.0
  int multiprocessors;
  int64_t shared_bytes;  // of a block, at most (opt-in)
  int64_t cache_bytes;   // L2
};

struct KernelPlan {
  const char* name;       // which kernel this shape gets, for plan.kernel
  const char* refusal;    // why it cannot run this, or nullptr
  int64_t scratch_bytes;  // device memory, 256-byte aligned, not cleared; never shrinks when sizes grow
};

// Faults, in device memory: for each tensor port the lowest index that was bad, with the value found there
// (index << 32 | value), or no_fault. Kernels skip the entry and do the rest.
constexpr int kMaxPorts = 16;
constexpr unsigned long long no_fault = ~0ull;
struct Status {
  unsigned long long first[kMaxPorts];
};

struct Run {
  const void* params;  // host memory, read before `run` returns; live axes at their actual sizes
  char* scratch;
  Status* status;
  const Device* device;
  cudaStream_t stream;
};

// One row of the table.
struct Kernel {
  const char* symbol;
  int64_t params_bytes;
  int tensors;
  void (*plan)(const void* params, const Device& device, KernelPlan* out);
  cudaError_t (*run)(const Run& run);
};

extern const Kernel kernels[];
extern const int kernel_count;
const Kernel* find_kernel(const char* symbol);

}  // namespace hotset
