// Queues a kernel: what <<<>>> does, on the GPU or in the emulation. Blocks are whole warps; a grid of 0 blocks is
// nothing to do; more than 48 KiB of dynamic shared memory is asked for as CUDA wants it asked for.
#pragma once
#include <cstdint>

#include "runtime.h"

namespace hotset {

constexpr int64_t kLargestGrid = (int64_t(1) << 31) - 1;

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes, cudaStream_t stream, const Arguments&... arguments) {
  if (blocks == 0) return cudaSuccess;
  if (blocks < 0 || blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
#ifdef HOTSET_CUDA_EMULATED
  (void)stream;
  return emulated::launch(blocks, threads, shared_bytes, [&] { kernel(Parameters(arguments)...); });
#else
  if (shared_bytes > 48 << 10) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(blocks));
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = size_t(shared_bytes);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
#endif
}

}  // namespace hotset
