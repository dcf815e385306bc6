// Asynchronous runs: one thread of the process takes them in order and is the caller of the pool for each, so the
// event loop is free and libuv's threads are left to the file system. An environment that ends waits for its own.
#pragma once
#include <napi.h>

#include <atomic>
#include <memory>

namespace hotset {

class Bound;

class Async {
 public:
  using Result = Napi::Value (*)(Napi::Env env, Bound& bound);

  // The caller keeps the step, its tensors and its parameters alive until the promise settles.
  Napi::Promise start(Napi::Env env, Bound& bound, Result result);

  // Blocks until nothing of this environment runs.
  void finish();

 private:
  struct Call;
  // Outlives the environment: the thread counts down after its last touch of it.
  std::shared_ptr<std::atomic<int>> running_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace hotset
