// What goes wrong on a device, in the three kinds that JavaScript tells apart.
#pragma once
#include <stdexcept>
#include <string>

#include "host_runtime.h"

namespace hotset {

class Failure : public std::runtime_error {
 public:
  enum Kind {
    memory,    // there is none left; smaller work goes on
    device,    // nothing runs on this device any more
    internal,  // this call alone
  };
  Failure(Kind k, const std::string& what) : std::runtime_error(what), kind(k) {}
  Kind kind;
};

// `cudaErrorInvalidValue: invalid argument`
std::string text_of(cudaError_t error);

// Why this process has lost a device, else empty. CUDA gives it back to a new process only.
std::string lost_reason(int device);
void set_lost(int device, const std::string& reason);

}  // namespace hotset
