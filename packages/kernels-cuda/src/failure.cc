#include "failure.h"

#include <map>
#include <mutex>

namespace hotset {

namespace {
std::mutex mutex;
std::map<int, std::string> reasons;
}  // namespace

std::string text_of(cudaError_t error) { return std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error); }

std::string lost_reason(int device) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = reasons.find(device);
  return found == reasons.end() ? std::string() : found->second;
}

void set_lost(int device, const std::string& reason) {
  std::lock_guard<std::mutex> lock(mutex);
  reasons.emplace(device, reason);
}

}  // namespace hotset
