// One CUDA stream with its memory: everything that one backend queues goes through it, in order. Knows no Node.
#pragma once
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "failure.h"
#include "kernel.h"
#include "staging.h"

namespace hotset {

class Stream {
 public:
  // Throws Failure, as everything here does.
  explicit Stream(int device);
  ~Stream() { shut(); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Waits for what is queued, and gives everything back. Nothing may be queued afterwards.
  void shut();

  // Device memory, 256-byte aligned. Freed memory is reused when what was queued before is done.
  void* alloc(int64_t bytes, bool clear);
  void free(void* address);

  // Queues a copy; `from` may change once this returns. Waits where more than the ring holds is under way.
  void write(void* to, const char* from, size_t bytes);

  // Queues one run of a kernel here, or on a stream of the caller's that then takes part in the order of this one.
  void run(const Kernel& kernel, const Run& run) { run_on(handle_, kernel, run); }
  void encode(cudaStream_t other, const Kernel& kernel, const Run& run);

  // Makes this thread's calls go to this device: another library may have chosen another one meanwhile.
  void enter() const { cudaSetDevice(device_); }

  // Throws where a call failed; tells a device that is gone from a call that was wrong.
  void check(cudaError_t error);
  Failure failure(cudaError_t error);

  cudaEvent_t take_event(bool timed);
  void give_event(cudaEvent_t event, bool timed);

  cudaStream_t handle() const { return handle_; }
  int device() const { return device_; }
  const Device& facts() const { return facts_; }

 private:
  cudaError_t take(void** address, size_t bytes);
  void run_on(cudaStream_t stream, const Kernel& kernel, const Run& run);

  const int device_;
  Device facts_;
  cudaStream_t handle_ = nullptr;
#ifndef HOTSET_CUDA_EMULATED
  cudaMemPool_t pool_ = nullptr;  // where the device has pools: freeing then waits for nothing
#endif
  std::unordered_map<void*, size_t> blocks_;
  std::vector<cudaEvent_t> events_[2], made_;

 public:
  Ring ring;
  Blocks blocks;
};

// What kernels size themselves by, of a device's properties.
Device facts_of(const cudaDeviceProp& properties);

}  // namespace hotset
