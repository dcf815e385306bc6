// The table of one instruction set, from kernels.inc. Compiled once per instruction set.
#include "gen/params.h"
#include "kernel.h"
#include "probe.h"
#include "simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

#define HOTSET_KERNEL(symbol)                                              \
  void symbol##_plan(const symbol##_params& params, int slots, KernelPlan& plan); \
  void symbol##_task(const symbol##_params& params, const Task& task);
#include "kernels.inc"
#undef HOTSET_KERNEL

extern const Kernel kernels[] = {
#define HOTSET_KERNEL(symbol)                                                                                   \
  {#symbol, sizeof(symbol##_params), symbol##_tensors,                                                         \
   [](const void* params, int slots, KernelPlan* out) {                                                        \
     *out = {};                                                                                                \
     symbol##_plan(*static_cast<const symbol##_params*>(params), slots, *out);                                 \
   },                                                                                                          \
   [](const Task& task) { symbol##_task(*static_cast<const symbol##_params*>(task.params), task); }},
#include "kernels.inc"
#undef HOTSET_KERNEL
};
extern const int kernel_count = sizeof(kernels) / sizeof(kernels[0]);

// Speed limits as this instruction set reaches them: what shares of the limit are stated against.

float probe_read(const float* data, int64_t count) {
  f32v sum[4] = {zero(), zero(), zero(), zero()};
  for (int64_t i = 0; i + 4 * kLanes <= count; i += 4 * kLanes)
    for (int j = 0; j < 4; j++) sum[j] = add(sum[j], load(data + i + j * kLanes));
  return reduce_add(add(add(sum[0], sum[1]), add(sum[2], sum[3])));
}

float probe_madd(int64_t steps) {
  constexpr int kChains = 12;
  f32v sum[kChains];
  for (int j = 0; j < kChains; j++) sum[j] = splat(float(j));
  const f32v factor = splat(0.999f), term = splat(0.001f);
  for (int64_t i = 0; i < steps; i++)
    for (int j = 0; j < kChains; j++) sum[j] = madd(sum[j], factor, term);
  f32v total = zero();
  for (int j = 0; j < kChains; j++) total = add(total, sum[j]);
  return reduce_add(total);
}

int64_t probe_madd_i16(int64_t steps) {
  constexpr int kChains = 8;
  alignas(64) int16_t values[kLanes16];
  for (int j = 0; j < kLanes16; j++) values[j] = int16_t(j);
  i32v sum[kChains];
  for (int j = 0; j < kChains; j++) sum[j] = zero_i32();
  i16v x = load_i16(values);
  for (int64_t i = 0; i < steps; i++) {
    // A new value each step, so that no product can be hoisted.
    x = and_bits(x, load_i16(values));
    for (int j = 0; j < kChains; j++) sum[j] = madd_i16(x, x, sum[j]);
  }
  int64_t total = 0;
  for (int j = 0; j < kChains; j++) total += reduce_add(sum[j]);
  return total;
}

extern const Probes probes = {probe_read, probe_madd, 12 * 2 * kLanes, probe_madd_i16, 8 * 2 * kLanes16};

}  // namespace HOTSET_ISA
}  // namespace hotset
