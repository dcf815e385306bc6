// What the two halves of the emulation share: the device's errors and limits.
#pragma once
#include "emulate.h"

namespace hotset::emulated {

// Of a block.
int64_t most_shared_bytes();

// Keeps an error for cudaGetLastError, and returns it.
cudaError_t record(cudaError_t error);
// Counts the launch; an error once the device is lost.
cudaError_t before_launch();

}  // namespace hotset::emulated
