// Speed limits as kernels can reach them: reading by 16 bytes a thread, chains of multiply-add in f32 and in i8.
#include "probes.h"

#include "launch.h"

namespace hotset {

namespace {

constexpr int kThreads = 256;
constexpr int kBlocksEach = 8;  // of a multiprocessor
constexpr int kChains = 8;
constexpr int kSteps = 256;

__global__ void read_all(const float4* data, int64_t count, float* sums) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  float sum = 0;
  for (int64_t i = at; i < count; i += int64_t(gridDim.x) * kThreads) {
    const float4 value = data[i];
    sum += value.x + value.y + value.z + value.w;
  }
  sums[at] = sum;
}

__global__ void multiply_add(float* sums) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  float sum[kChains];
  for (int j = 0; j < kChains; j++) sum[j] = float(threadIdx.x + j);
  for (int i = 0; i < kSteps; i++)
    for (int j = 0; j < kChains; j++) sum[j] = fmaf(sum[j], 0.999f, 0.001f);
  float total = 0;
  for (int j = 0; j < kChains; j++) total += sum[j];
  sums[at] = total;
}

// Four products of 8-bit values, and their sum.
__device__ int dot4(int a, int b, int sum) {
#ifdef HOTSET_CUDA_EMULATED
  for (int shift = 0; shift < 32; shift += 8) sum += int(int8_t(a >> shift)) * int(int8_t(b >> shift));
  return sum;
#else
  return __dp4a(a, b, sum);
#endif
}

__global__ void multiply_add_i8(float* sums) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  int sum[kChains];
  for (int j = 0; j < kChains; j++) sum[j] = int(threadIdx.x) + j;
  for (int i = 0; i < kSteps; i++)
    for (int j = 0; j < kChains; j++) sum[j] = dot4(sum[j] ^ i, 0x01020304, sum[j]);
  int total = 0;
  for (int j = 0; j < kChains; j++) total ^= sum[j];
  sums[at] = float(total);
}

__global__ void threes(float* sums) { sums[int64_t(blockIdx.x) * 32 + threadIdx.x] = float(blockIdx.x * 32 + threadIdx.x) * 3; }

// Blocks that fill the device, within the sums there are.
int64_t blocks_of(const Device& device) {
  const int64_t blocks = int64_t(device.multiprocessors) * kBlocksEach;
  return blocks * kThreads > probe_sums ? probe_sums / kThreads : blocks;
}

}  // namespace

cudaError_t probe_read(const float* data, int64_t bytes, float* sums, const Device& device, cudaStream_t stream, double* amount) {
  const int64_t count = bytes / 16;
  const int64_t needed = (count + kThreads - 1) / kThreads;
  const int64_t most = blocks_of(device);
  *amount = double(count) * 16;
  return launch(read_all, needed < most ? needed : most, kThreads, 0, stream, reinterpret_cast<const float4*>(data), count, sums);
}

cudaError_t probe_madd(float* sums, const Device& device, cudaStream_t stream, double* amount) {
  *amount = 2.0 * kChains * kSteps * kThreads * double(blocks_of(device));
  return launch(multiply_add, blocks_of(device), kThreads, 0, stream, sums);
}

cudaError_t probe_madd_i8(float* sums, const Device& device, cudaStream_t stream, double* amount) {
  *amount = 8.0 * kChains * kSteps * kThreads * double(blocks_of(device));
  return launch(multiply_add_i8, blocks_of(device), kThreads, 0, stream, sums);
}

cudaError_t probe_check(float* sums, cudaStream_t stream) { return launch(threes, 2, 32, 0, stream, sums); }

}  // namespace hotset
