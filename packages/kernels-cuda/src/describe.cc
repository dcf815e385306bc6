#include "describe.h"

#include "stream.h"

namespace hotset {

Machine describe_machine() {
  Machine machine;
  cudaRuntimeGetVersion(&machine.runtime);
  cudaDriverGetVersion(&machine.driver);
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  for (int i = 0; error == cudaSuccess && i < count; i++) {
    cudaDeviceProp properties;
    error = cudaGetDeviceProperties(&properties, i);
    if (error == cudaSuccess) machine.devices.push_back({properties.name, int64_t(properties.totalGlobalMem), facts_of(properties)});
  }
  if (error != cudaSuccess) machine.reason = text_of(error);
  if (error == cudaSuccess && count == 0) machine.reason = text_of(cudaErrorNoDevice);
  cudaGetLastError();
  return machine;
}

}  // namespace hotset
