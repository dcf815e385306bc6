#include "async.h"

#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "bound.h"

namespace hotset {

namespace {

// The process's asynchronous thread.
class Runner {
 public:
  static Runner& get() {
    static Runner* runner = new Runner;
    return *runner;
  }

  void add(std::function<void()> job) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!started_) {
        started_ = true;
        std::thread([this] { loop(); }).detach();
      }
      jobs_.push_back(std::move(job));
    }
    waiting_.fetch_add(1, std::memory_order_release);
    waiting_.notify_one();
  }

 private:
  void loop() {
    for (;;) {
      waiting_.wait(0, std::memory_order_acquire);
      std::function<void()> job;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      waiting_.fetch_sub(1, std::memory_order_relaxed);
      job();
    }
  }

  std::mutex mutex_;
  std::deque<std::function<void()>> jobs_;
  std::atomic<int> waiting_{0};  // jobs in the list
  bool started_ = false;
};

}  // namespace

struct Async::Call {
  Call(Napi::Env env, Bound& b, Result r) : deferred(Napi::Promise::Deferred::New(env)), bound(b), result(r) {}
  Napi::Promise::Deferred deferred;
  Bound& bound;
  Result result;
  Napi::ThreadSafeFunction settle;
};

Napi::Promise Async::start(Napi::Env env, Bound& bound, Result result) {
  auto* call = new Call(env, bound, result);
  const Napi::Promise promise = call->deferred.Promise();
  call->settle = Napi::ThreadSafeFunction::New(env, Napi::Function(), "hotset", 0, 1);
  running_->fetch_add(1);
  Runner::get().add([call, running = running_] {
    call->bound.run();
    // After this the environment may end; a call that it no longer takes is only freed.
    Napi::ThreadSafeFunction settle = call->settle;
    const napi_status queued = settle.NonBlockingCall(call, [](Napi::Env e, Napi::Function, Call* done) {
      if (e != nullptr) done->deferred.Resolve(done->result(e, done->bound));
      delete done;
    });
    if (queued != napi_ok) delete call;
    settle.Release();
    running->fetch_sub(1);
    running->notify_all();
  });
  return promise;
}

void Async::finish() {
  for (int running; (running = running_->load()) > 0;) running_->wait(running);
}

}  // namespace hotset
