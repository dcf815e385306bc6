// The table of kernels, from kernels.inc.
#include <cstring>

#include "gen/params.h"
#include "kernel.h"

namespace hotset {

#define HOTSET_KERNEL(symbol)                                                                  \
  void symbol##_plan(const symbol##_params& params, const Device& device, KernelPlan& plan); \
  cudaError_t symbol##_run(const symbol##_params& params, const Run& run);
#include "kernels.inc"
#undef HOTSET_KERNEL

const Kernel kernels[] = {
#define HOTSET_KERNEL(symbol)                                                                         \
  {#symbol, sizeof(symbol##_params), symbol##_tensors,                                               \
   [](const void* params, const Device& device, KernelPlan* out) {                                   \
     *out = {};                                                                                      \
     symbol##_plan(*static_cast<const symbol##_params*>(params), device, *out);                      \
   },                                                                                                \
   [](const Run& run) { return symbol##_run(*static_cast<const symbol##_params*>(run.params), run); }},
#include "kernels.inc"
#undef HOTSET_KERNEL
};
const int kernel_count = sizeof(kernels) / sizeof(kernels[0]);

const Kernel* find_kernel(const char* symbol) {
  for (const Kernel& kernel : kernels)
    if (!strcmp(kernel.symbol, symbol)) return &kernel;
  return nullptr;
}

}  // namespace hotset
