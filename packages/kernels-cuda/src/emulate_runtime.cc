// The runtime API of the emulation: one device whose memory is the heap's. Everything is done when a call returns.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "emulate_state.h"

struct EmulatedStream {
  unsigned flags;
};
struct EmulatedEvent {
  std::chrono::steady_clock::time_point at;
  bool recorded;
};

namespace hotset::emulated {

namespace {

struct Block {
  size_t bytes;
  bool host;
};

std::recursive_mutex guard;
std::map<uintptr_t, Block> blocks;
size_t used;
int64_t launches;
thread_local cudaError_t last = cudaSuccess;

int64_t setting(const char* name, int64_t otherwise) {
  const char* const value = std::getenv(name);
  return value && *value ? std::atoll(value) : otherwise;
}
size_t capacity() { return size_t(setting("HOTSET_EMULATED_MEMORY", int64_t(8) << 30)); }
bool lost() {
  const int64_t most = setting("HOTSET_EMULATED_LOSS", -1);
  return most >= 0 && launches > most;
}
cudaError_t state() {
  const int64_t devices = setting("HOTSET_EMULATED_DEVICES", 1);
  if (devices < 0) return cudaErrorInsufficientDriver;
  if (devices == 0) return cudaErrorNoDevice;
  return lost() ? cudaErrorIllegalAddress : cudaSuccess;
}
cudaError_t checked(bool valid) { return record(state() != cudaSuccess ? state() : valid ? cudaSuccess : cudaErrorInvalidValue); }

cudaError_t allocate(void** out, size_t bytes, bool host) {
  const std::lock_guard<std::recursive_mutex> lock(guard);
  if (state() != cudaSuccess) return record(state());
  *out = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (!host && bytes > capacity() - (used < capacity() ? used : capacity())) return record(cudaErrorMemoryAllocation);
  if (posix_memalign(out, 256, bytes)) return record(cudaErrorMemoryAllocation);
  memset(*out, 0xff, bytes);
  blocks[uintptr_t(*out)] = {bytes, host};
  if (!host) used += bytes;
  return cudaSuccess;
}

cudaError_t release(void* block, bool host) {
  const std::lock_guard<std::recursive_mutex> lock(guard);
  if (!block) return cudaSuccess;
  const auto at = blocks.find(uintptr_t(block));
  if (at == blocks.end() || at->second.host != host) return record(cudaErrorInvalidValue);
  if (!host) used -= at->second.bytes;
  blocks.erase(at);
  std::free(block);
  return record(state());
}

// The block that holds an address.
const Block* block_of(const void* at, uintptr_t* first = nullptr) {
  auto next = blocks.upper_bound(uintptr_t(at));
  if (next == blocks.begin()) return nullptr;
  --next;
  if (uintptr_t(at) >= next->first + next->second.bytes) return nullptr;
  if (first) *first = next->first;
  return &next->second;
}

// Whether so many bytes lie in one block of the device.
bool on_device(const void* at, size_t bytes) {
  uintptr_t first = 0;
  const Block* const block = block_of(at, &first);
  return block && !block->host && uintptr_t(at) + bytes <= first + block->bytes;
}

}  // namespace

int64_t most_shared_bytes() { return setting("HOTSET_EMULATED_SHARED", 227 << 10); }

cudaError_t record(cudaError_t error) {
  if (error != cudaSuccess) last = error;
  return error;
}

cudaError_t before_launch() {
  const std::lock_guard<std::recursive_mutex> lock(guard);
  launches++;
  return record(state());
}

}  // namespace hotset::emulated

using namespace hotset::emulated;

cudaError_t cudaGetDeviceCount(int* count) {
  const int64_t devices = setting("HOTSET_EMULATED_DEVICES", 1);
  *count = devices > 0 ? int(devices) : 0;
  return record(devices > 0 ? cudaSuccess : state());
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return checked(true);
}
cudaError_t cudaSetDevice(int device) {
  if (state() != cudaSuccess) return record(state());
  return device >= 0 && device < setting("HOTSET_EMULATED_DEVICES", 1) ? cudaSuccess : record(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int device) {
  const cudaError_t error = cudaSetDevice(device);
  if (error != cudaSuccess) return error;
  *out = {};
  std::snprintf(out->name, sizeof out->name, "emulated");
  out->totalGlobalMem = capacity();
  out->sharedMemPerBlock = 48 << 10;
  out->sharedMemPerBlockOptin = size_t(most_shared_bytes());
  out->major = 9;
  out->multiProcessorCount = int(setting("HOTSET_EMULATED_MULTIPROCESSORS", 4));
  out->l2CacheSize = 4 << 20;
  out->memoryBusWidth = 64;
  out->unifiedAddressing = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrClockRate: *value = 1000000; break;
    case cudaDevAttrMemoryClockRate: *value = 1000000; break;
    case cudaDevAttrMultiProcessorCount: *value = properties.multiProcessorCount; break;
    case cudaDevAttrIntegrated: *value = properties.integrated; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = properties.memoryBusWidth; break;
    case cudaDevAttrL2CacheSize: *value = properties.l2CacheSize; break;
    case cudaDevAttrUnifiedAddressing: *value = properties.unifiedAddressing; break;
    case cudaDevAttrComputeCapabilityMajor: *value = properties.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = properties.minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(properties.sharedMemPerBlockOptin); break;
    default: return record(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return checked(true); }
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = setting("HOTSET_EMULATED_DEVICES", 1) < 0 ? 0 : 13000;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = last;
  last = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return last; }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define HOTSET_ERROR(name) case name: return #name
    HOTSET_ERROR(cudaSuccess);
    HOTSET_ERROR(cudaErrorInvalidValue);
    HOTSET_ERROR(cudaErrorMemoryAllocation);
    HOTSET_ERROR(cudaErrorInitializationError);
    HOTSET_ERROR(cudaErrorInvalidConfiguration);
    HOTSET_ERROR(cudaErrorInsufficientDriver);
    HOTSET_ERROR(cudaErrorNoDevice);
    HOTSET_ERROR(cudaErrorInvalidDevice);
    HOTSET_ERROR(cudaErrorInvalidResourceHandle);
    HOTSET_ERROR(cudaErrorNotReady);
    HOTSET_ERROR(cudaErrorIllegalAddress);
    HOTSET_ERROR(cudaErrorNotSupported);
#undef HOTSET_ERROR
  }
  return "cudaErrorUnknown";
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    default: return cudaGetErrorName(error);
  }
}

cudaError_t cudaMalloc(void** out, size_t bytes) { return allocate(out, bytes, false); }
cudaError_t cudaFree(void* block) { return release(block, false); }
cudaError_t cudaMallocHost(void** out, size_t bytes) { return allocate(out, bytes, true); }
cudaError_t cudaFreeHost(void* block) { return release(block, true); }
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const std::lock_guard<std::recursive_mutex> lock(guard);
  *total_bytes = capacity();
  *free_bytes = used < capacity() ? capacity() - used : 0;
  return checked(true);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  const std::lock_guard<std::recursive_mutex> lock(guard);
  if (bytes == 0) return checked(true);
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const cudaError_t error = checked((!to_device || on_device(to, bytes)) && (!from_device || on_device(from, bytes)));
  if (error == cudaSuccess) memmove(to, from, bytes);
  return error;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) { return cudaMemcpyAsync(to, from, bytes, kind); }
cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  const std::lock_guard<std::recursive_mutex> lock(guard);
  if (bytes == 0) return checked(true);
  const cudaError_t error = checked(on_device(at, bytes));
  if (error == cudaSuccess) memset(at, value, bytes);
  return error;
}
cudaError_t cudaMemset(void* at, int value, size_t bytes) { return cudaMemsetAsync(at, value, bytes); }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* at) {
  const std::lock_guard<std::recursive_mutex> lock(guard);
  const Block* const block = block_of(at);
  *out = {};
  void* const address = const_cast<void*>(at);
  if (block) *out = {block->host ? cudaMemoryTypeHost : cudaMemoryTypeDevice, 0, address, block->host ? address : nullptr};
  return checked(true);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  if (state() != cudaSuccess) return record(state());
  *out = new EmulatedStream{flags};
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithFlags(out, cudaStreamDefault); }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return checked(true); }
cudaError_t cudaStreamQuery(cudaStream_t) { return checked(true); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return checked(true);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned) { return checked(event != nullptr); }
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t function, void* data) {
  const cudaError_t error = checked(true);
  if (error == cudaSuccess) function(data);
  return error;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  if (state() != cudaSuccess) return record(state());
  *out = new EmulatedEvent{};
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, cudaEventDefault); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->at = std::chrono::steady_clock::now();
  event->recorded = true;
  return checked(true);
}
cudaError_t cudaEventQuery(cudaEvent_t) { return checked(true); }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return checked(true); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  if (!from->recorded || !to->recorded) return record(cudaErrorInvalidResourceHandle);
  *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return checked(true);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return checked(true);
}
