// What a device reaches: work for calibration, to be timed on its own clock.
#pragma once
#include <cstdint>

#include "host_runtime.h"
#include "kernel.h"

namespace hotset {

// Floats that a probe writes, at least.
constexpr int64_t probe_sums = int64_t(1) << 20;

// Queue one launch on `sums`; the amount of work goes to `amount`: bytes read, or additions and multiplications.
cudaError_t probe_read(const float* data, int64_t bytes, float* sums, const Device& device, cudaStream_t stream, double* amount);
cudaError_t probe_madd(float* sums, const Device& device, cudaStream_t stream, double* amount);
cudaError_t probe_madd_i8(float* sums, const Device& device, cudaStream_t stream, double* amount);

// sums[i] = i * 3 for 64 entries: does this device run what was compiled?
cudaError_t probe_check(float* sums, cudaStream_t stream);

}  // namespace hotset
