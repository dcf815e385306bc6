// The runtime API as the host side uses it: what the emulation does not need is answered here.
#pragma once
#include "runtime.h"

#ifdef HOTSET_CUDA_EMULATED
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
#endif
