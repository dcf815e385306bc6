#include "stream.h"

#include <cstring>

namespace hotset {

namespace {

#ifndef HOTSET_CUDA_EMULATED
// Freed memory that waits for its next use, of which the driver takes back what is more at each wait.
constexpr uint64_t kept_bytes = uint64_t(256) << 20;

cudaMemPool_t make_pool(int device) {
  int supported = 0;
  if (cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device) != cudaSuccess || !supported) return nullptr;
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  if (cudaMemPoolCreate(&pool, &properties) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  uint64_t kept = kept_bytes;
  cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept);
  return pool;
}
#endif

}  // namespace

Device facts_of(const cudaDeviceProp& properties) {
  Device facts;
  facts.arch = properties.major * 10 + properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.shared_bytes = int64_t(properties.sharedMemPerBlockOptin);
  facts.cache_bytes = properties.l2CacheSize;
  return facts;
}

Stream::Stream(int device) : device_(device) {
  const std::string lost = lost_reason(device);
  if (!lost.empty()) throw Failure(Failure::device, "this process has lost it: " + lost);
  const auto must = [](cudaError_t error) {
    if (error == cudaSuccess) return;
    cudaGetLastError();
    throw Failure(Failure::device, text_of(error));
  };
  must(cudaSetDevice(device));
  cudaDeviceProp properties;
  must(cudaGetDeviceProperties(&properties, device));
  facts_ = facts_of(properties);
  must(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking));
#ifndef HOTSET_CUDA_EMULATED
  pool_ = make_pool(device);
#endif
}

// Errors have nobody to be told to here, and a lost device gives its memory back with the process.
void Stream::shut() {
  if (!handle_) return;
  enter();
  cudaStreamSynchronize(handle_);
  while (!blocks_.empty()) free(blocks_.begin()->first);
  cudaStreamSynchronize(handle_);
  ring.release();
  blocks.release();
  for (const cudaEvent_t event : made_) cudaEventDestroy(event);
  made_.clear();
#ifndef HOTSET_CUDA_EMULATED
  if (pool_) cudaMemPoolDestroy(pool_);
#endif
  cudaStreamDestroy(handle_);
  handle_ = nullptr;
  cudaGetLastError();
}

cudaError_t Stream::take(void** address, size_t bytes) {
#ifndef HOTSET_CUDA_EMULATED
  if (pool_) return cudaMallocFromPoolAsync(address, bytes, pool_, handle_);
#endif
  return cudaMalloc(address, bytes);
}

void* Stream::alloc(int64_t bytes, bool clear) {
  // Beyond what any device has: CUDA rounds sizes up, and would wrap around.
  if (bytes < 0 || bytes > int64_t(1) << 46) throw Failure(Failure::memory, text_of(cudaErrorMemoryAllocation));
  const size_t size = size_t(bytes < 256 ? 256 : bytes);
  void* address = nullptr;
  cudaError_t error = take(&address, size);
#ifndef HOTSET_CUDA_EMULATED
  if (error == cudaErrorMemoryAllocation && pool_) {
    // What was freed is there when the work before it is done.
    cudaGetLastError();
    cudaStreamSynchronize(handle_);
    cudaMemPoolTrimTo(pool_, 0);
    error = take(&address, size);
  }
#endif
  check(error);
  blocks_.emplace(address, size);
  if (!clear) return address;
  const cudaError_t cleared = cudaMemsetAsync(address, 0, size, handle_);
  if (cleared != cudaSuccess) free(address);
  check(cleared);
  return address;
}

void Stream::free(void* address) {
  if (blocks_.erase(address) == 0) return;
#ifndef HOTSET_CUDA_EMULATED
  if (pool_) {
    cudaFreeAsync(address, handle_);
    cudaGetLastError();
    return;
  }
#endif
  // Waits for the device itself.
  cudaFree(address);
  cudaGetLastError();
}

void Stream::write(void* to, const char* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += Ring::piece) {
    const size_t part = bytes - at < Ring::piece ? bytes - at : Ring::piece;
    char* const staged = ring.reserve(*this, part);
    std::memcpy(staged, from + at, part);
    check(cudaMemcpyAsync(static_cast<char*>(to) + at, staged, part, cudaMemcpyHostToDevice, handle_));
    ring.commit(*this);
  }
}

void Stream::run_on(cudaStream_t stream, const Kernel& kernel, const Run& run) {
  Run here = run;
  here.device = &facts_;
  here.stream = stream;
  check(kernel.run(here));
}

void Stream::encode(cudaStream_t other, const Kernel& kernel, const Run& run) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(other, &capture));
  // A stream that is being captured takes no part in what runs now: its graph is ordered by who launches it.
  if (capture != cudaStreamCaptureStatusNone) return run_on(other, kernel, run);
  const cudaEvent_t event = take_event(false);
  check(cudaEventRecord(event, handle_));
  check(cudaStreamWaitEvent(other, event, 0));
  run_on(other, kernel, run);
  check(cudaEventRecord(event, other));
  check(cudaStreamWaitEvent(handle_, event, 0));
  give_event(event, false);
}

void Stream::check(cudaError_t error) {
  if (error != cudaSuccess) throw failure(error);
}

Failure Stream::failure(cudaError_t error) {
  // CUDA keeps an error for the next call.
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) return Failure(Failure::memory, text_of(error));
  const cudaError_t state = cudaStreamQuery(handle_);
  cudaGetLastError();
  if (state == cudaSuccess || state == cudaErrorNotReady) return Failure(Failure::internal, text_of(error));
  set_lost(device_, text_of(error));
  return Failure(Failure::device, text_of(error));
}

cudaEvent_t Stream::take_event(bool timed) {
  std::vector<cudaEvent_t>& list = events_[timed];
  cudaEvent_t event = nullptr;
  if (list.empty()) {
    check(cudaEventCreateWithFlags(&event, timed ? cudaEventBlockingSync : cudaEventBlockingSync | cudaEventDisableTiming));
    made_.push_back(event);
    return event;
  }
  event = list.back();
  list.pop_back();
  return event;
}

void Stream::give_event(cudaEvent_t event, bool timed) { events_[timed].push_back(event); }

}  // namespace hotset
