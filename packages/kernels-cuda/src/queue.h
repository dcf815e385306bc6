// A stream with its steps and its waits: what one backend of one JavaScript environment has of a device.
#pragma once
#include <napi.h>

#include <map>
#include <memory>
#include <unordered_map>

#include "probes.h"
#include "stream.h"
#include "waits.h"

namespace hotset {

// A kernel with its parameters, which JavaScript owns, and its device memory: the status, then the scratch.
struct Step {
  const Kernel* kernel = nullptr;
  Napi::Reference<Napi::Uint8Array> keep;
  const void* params = nullptr;
  char* memory = nullptr;

  Run run() const { return {params, memory + status_bytes, reinterpret_cast<Status*>(memory), nullptr, nullptr}; }
  static constexpr int64_t status_bytes = 256;
  static_assert(sizeof(Status) <= status_bytes);
};

class Queue {
 public:
  Queue(Napi::Env env, int device) : stream(device), waits(env, stream) {}

  uint32_t add(Step step) {
    steps_.emplace(next_, std::move(step));
    return next_++;
  }
  Step* find(uint32_t id) {
    const auto found = steps_.find(id);
    return found == steps_.end() ? nullptr : &found->second;
  }
  // What is queued still has the memory: it is freed in the order of the stream.
  void remove(uint32_t id) {
    Step* const step = find(id);
    if (!step) return;
    stream.free(step->memory);
    steps_.erase(id);
  }
  void close() {
    steps_.clear();
    waits.close();
  }

  Stream stream;

 private:
  std::unordered_map<uint32_t, Step> steps_;
  uint32_t next_ = 0;

 public:
  Waits waits;  // destroyed first: its thread uses the stream
};

// The queues of one environment (the main thread's, or a worker's).
class Queues {
 public:
  static Queues& of(Napi::Env env) { return *env.GetInstanceData<Queues>(); }

  uint32_t open(Napi::Env env, int device) {
    for (auto at = closing_.begin(); at != closing_.end();) at = (*at)->waits.closed() ? closing_.erase(at) : std::next(at);
    queues_.emplace(next_, std::make_unique<Queue>(env, device));
    return next_++;
  }
  Queue* find(uint32_t id) {
    const auto found = queues_.find(id);
    return found == queues_.end() ? nullptr : found->second.get();
  }
  void close(uint32_t id) {
    const auto found = queues_.find(id);
    if (found == queues_.end()) return;
    found->second->close();
    closing_.push_back(std::move(found->second));
    queues_.erase(found);
  }

 private:
  std::map<uint32_t, std::unique_ptr<Queue>> queues_;
  std::vector<std::unique_ptr<Queue>> closing_;
  uint32_t next_ = 1;
};

}  // namespace hotset
