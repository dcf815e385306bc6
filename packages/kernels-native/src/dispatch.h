// The instruction sets this build has, and which of them this processor can run.
#pragma once
#include "kernel.h"
#include "probe.h"

namespace hotset {

struct Isa {
  const char* name;
  bool (*available)();
  const char* needs;  // the processor features, for messages
  const Kernel* kernels;
  int kernel_count;
  const Probes* probes;
};

extern const Isa isas[];  // best first
extern const int isa_count;

const Isa* find_isa(const char* name);              // nullptr: not in this build
const Isa* best_isa();                              // the first that is available
const Kernel* find_kernel(const Isa& isa, const char* symbol);

}  // namespace hotset
