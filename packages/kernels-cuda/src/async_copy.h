// cp.async: from global to shared memory without registers, done after async_wait. What is not there becomes zeros.
// In the emulation a copy takes place at the wait, so that a forgotten wait shows.
#pragma once
#include <cstdint>

#include "runtime.h"

namespace hotset {

#ifdef HOTSET_CUDA_EMULATED
template <int Bytes>
void async_copy(void* shared, const void* global, bool there) { emulated::copy_later(shared, there ? global : nullptr, Bytes); }
inline void async_commit() { emulated::copies_commit(); }
template <int Groups>
void async_wait() { emulated::copies_wait(Groups); }
#else
// Bytes: 4 or 16, to and from a multiple of as many.
template <int Bytes>
__device__ __forceinline__ void async_copy(void* shared, const void* global, bool there) {
  const unsigned to = unsigned(__cvta_generic_to_shared(shared));
  const int bytes = there ? Bytes : 0;
  if (Bytes == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
  else asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
static __device__ __forceinline__ void async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most so many of this thread's groups are under way.
template <int Groups>
__device__ __forceinline__ void async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory"); }
#endif

}  // namespace hotset
