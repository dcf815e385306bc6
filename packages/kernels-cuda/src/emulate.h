// CUDA on the CPU, for tests on machines without a GPU: the words of the language and of the runtime that Hotset's
// sources use. A kernel runs as one fiber per thread, blocks one after another (emulate.cc); a launch is done when it
// returns, so streams are in order by nature. Warps have 32 lanes and every warp operation takes all of them.
// Reported, and the process ended: threads of a block at different barriers, a thread that returns while others wait, a
// write behind the dynamic shared memory. New memory, shared or not, is filled with NaN; blocks of memory are of exactly
// their size, so that AddressSanitizer sees what goes beyond.
//   HOTSET_EMULATED_MEMORY=<bytes>     memory of the device (default 8 GiB)
//   HOTSET_EMULATED_DEVICES=<n>        devices (default 1); -1: an old driver
//   HOTSET_EMULATED_LOSS=<n>           launches after which the device is lost
//   HOTSET_EMULATED_MULTIPROCESSORS=<n>, HOTSET_EMULATED_SHARED=<bytes of a block>: other devices (4, 232448)
//   HOTSET_EMULATED_ORDER=backward     threads of a block take their turns from the last to the first
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

#include "emulate_runtime.h"

namespace hotset::emulated {

// What a lane shows the others of its warp.
struct Slot { uint64_t words[4]; };
struct Thread {
  uint3 index;
  int lane;
};
extern Thread* thread;
extern dim3 block_index, block_size, grid_size;

char* shared_memory();
void sync_block(const char* file, int line);
// Waits for the other lanes; returns the slots of all 32. They hold until the lane's next warp operation.
const Slot* exchange(int line, const Slot& mine);

// cp.async of this thread; `from` is nullptr for zeros.
void copy_later(void* to, const void* from, int bytes);
void copies_commit();
void copies_wait(int groups);

cudaError_t launch_body(int64_t blocks, int threads, int64_t shared_bytes, void (*body)(const void*), const void* closure);
template <class Body>
cudaError_t launch(int64_t blocks, int threads, int64_t shared_bytes, const Body& body) {
  return launch_body(blocks, threads, shared_bytes, [](const void* closure) { (*static_cast<const Body*>(closure))(); }, &body);
}

template <class T>
T shuffle(int line, unsigned, T value, int source) {
  static_assert(sizeof(T) <= 8);
  Slot slot = {};
  memcpy(slot.words, &value, sizeof(T));
  T out;
  memcpy(&out, exchange(line, slot)[source & 31].words, sizeof(T));
  return out;
}
template <class T>
T shuffle_xor(int line, unsigned mask, T value, int lanes) { return shuffle(line, mask, value, thread->lane ^ lanes); }
inline unsigned ballot(int line, unsigned, bool value) {
  const Slot* const slots = exchange(line, {{uint64_t(value)}});
  unsigned bits = 0;
  for (int i = 0; i < 32; i++) bits |= unsigned(slots[i].words[0]) << i;
  return bits;
}

}  // namespace hotset::emulated

#define threadIdx (hotset::emulated::thread->index)
#define blockIdx (hotset::emulated::block_index)
#define blockDim (hotset::emulated::block_size)
#define gridDim (hotset::emulated::grid_size)
#define __syncthreads() hotset::emulated::sync_block(__FILE__, __LINE__)
#define __syncwarp(...) ((void)hotset::emulated::exchange(__LINE__, {}))
#define __shfl_xor_sync(...) hotset::emulated::shuffle_xor(__LINE__, __VA_ARGS__)
#define __ballot_sync(...) hotset::emulated::ballot(__LINE__, __VA_ARGS__)
#define __any_sync(...) (hotset::emulated::ballot(__LINE__, __VA_ARGS__) != 0)

template <class T>
T atomicAdd(T* at, T value) { const T old = *at; *at = old + value; return old; }
template <class T>
T atomicMin(T* at, T value) { const T old = *at; if (value < old) *at = value; return old; }
template <class T>
T atomicMax(T* at, T value) { const T old = *at; if (value > old) *at = value; return old; }

template <class T>
T __ldg(const T* at) { return *at; }
inline unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline float __expf(float x) { return expf(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline float __double2float_rn(double a) { return float(a); }
