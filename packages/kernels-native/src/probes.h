// Measuring the machine through the pool: bandwidth and multiply-add, as kernels can reach them.
#pragma once
#include <cstdint>
#include <string>

#include "probe.h"

namespace hotset {

// kind: "read" or "copy" (GB/s over a working set of `bytes`), "madd" or "madd-i8" (10^9 operations a second, the
// latter of 8-bit values widened to 16). Median of
// several passes. Negative: no memory.
double measure(const Probes& probes, const std::string& kind, int64_t bytes, int threads);

}  // namespace hotset
