// A kernel with its parameters, scratch and the JS values that keep its memory alive; and the table of them.
#pragma once
#include <napi.h>

#include <cstdlib>
#include <memory>
#include <vector>

#include "async.h"
#include "kernel.h"
#include "pool.h"

namespace hotset {

// 64-byte aligned memory that only grows.
class Memory {
 public:
  Memory() = default;
  ~Memory() { std::free(block_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // At least so many bytes, with unknown contents; nullptr where there are none.
  char* grow(int64_t bytes) {
    if (bytes < 0 || bytes > int64_t(1) << 46) return nullptr;
    if (!block_ || bytes > bytes_) {
      std::free(block_);
      block_ = static_cast<char*>(std::malloc(size_t(bytes) + 64));
      bytes_ = block_ ? bytes : 0;
    }
    return block_ ? reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(block_) + 63) & ~uintptr_t(63)) : nullptr;
  }
  void release() {
    std::free(block_);
    block_ = nullptr;
    bytes_ = 0;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* block_ = nullptr;
  int64_t bytes_ = 0;
};

class Bound {
 public:
  Bound(const Kernel& k, int threads) : kernel(k), slots(threads < 1 ? 1 : threads), statuses(size_t(slots)) {}
  bool allocate(int64_t bytes) {
    scratch = memory_.grow(bytes);
    return scratch != nullptr;
  }

  void run() {
    for (Status& status : statuses) status = Status();
    run_kernel(kernel, params, scratch, slots, statuses.data());
  }

  const Kernel& kernel;
  const int slots;
  std::vector<Status> statuses;
  const void* params = nullptr;
  char* scratch = nullptr;
  Napi::ObjectReference keep;

 private:
  Memory memory_;
};

// The steps of one environment (the main thread's, or a worker's).
class Steps {
 public:
  static Steps& of(Napi::Env env) { return *env.GetInstanceData<Steps>(); }

  uint32_t add(std::unique_ptr<Bound> bound) {
    if (free_.empty()) {
      steps_.push_back(std::move(bound));
      return uint32_t(steps_.size() - 1);
    }
    const uint32_t step = free_.back();
    free_.pop_back();
    steps_[step] = std::move(bound);
    return step;
  }

  Bound* find(uint32_t step) { return step < steps_.size() ? steps_[step].get() : nullptr; }

  void remove(uint32_t step) {
    if (!find(step)) return;
    steps_[step].reset();
    free_.push_back(step);
  }

  // Scratch for calls without a step, kept between them while it is small.
  char* scratch(int64_t bytes) { return scratch_.grow(bytes); }
  void trim() {
    if (scratch_.bytes() > int64_t(8) << 20) scratch_.release();
  }

  ~Steps() { async.finish(); }

 private:
  std::vector<std::unique_ptr<Bound>> steps_;
  std::vector<uint32_t> free_;
  Memory scratch_;

 public:
  Async async;  // destroyed first: it waits for what still runs on the steps
};

}  // namespace hotset
