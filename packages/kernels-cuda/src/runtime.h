// The CUDA runtime, or its stand-in on the CPU (emulate.h).
#pragma once
#ifdef HOTSET_CUDA_EMULATED
#include "emulate.h"
#define HOTSET_DYNAMIC_SHARED(name) char* const name = hotset::emulated::shared_memory()
#define HOTSET_UNROLL
#define HOTSET_UNROLL_BY(times)
#else
#include <cuda_runtime.h>
// A kernel's dynamic shared memory, as bytes.
#define HOTSET_DYNAMIC_SHARED(name) extern __shared__ __align__(128) char name[]
// Before a loop.
#define HOTSET_PRAGMA(text) _Pragma(#text)
#define HOTSET_UNROLL HOTSET_PRAGMA(unroll)
#define HOTSET_UNROLL_BY(times) HOTSET_PRAGMA(unroll times)
#endif
