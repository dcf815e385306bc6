// Loops that measure the machine: memory read and multiply-add, per instruction set.
#pragma once
#include <cstdint>

namespace hotset {

struct Probes {
  float (*read)(const float* data, int64_t count);
  float (*madd)(int64_t steps);
  int64_t flops_per_step;
  int64_t (*madd_i16)(int64_t steps);
  int64_t ops_i16_per_step;
};

}  // namespace hotset
