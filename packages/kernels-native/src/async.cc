#include "async.h"

#include <deque>
#include <functional>
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
    std::lock_guard<std::mutex> lock(mutex_);
    if (!started_) {
      started_ = true;
      std::thread([this] { loop(); }).detach();
    }
    jobs_.push_back(std::move(job));
    ready_.notify_one();
  }

 private:
  void loop() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      ready_.wait(lock, [this] { return !jobs_.empty(); });
      std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> jobs_;
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
  {
    std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->running++;
  }
  Runner::get().add([call, shared = shared_] {
    call->bound.run();
    // After this the environment may end; a call that it no longer takes is only freed.
    Napi::ThreadSafeFunction settle = call->settle;
    const napi_status queued = settle.NonBlockingCall(call, [](Napi::Env e, Napi::Function, Call* done) {
      if (e != nullptr) done->deferred.Resolve(done->result(e, done->bound));
      delete done;
    });
    if (queued != napi_ok) delete call;
    settle.Release();
    std::lock_guard<std::mutex> lock(shared->mutex);
    if (--shared->running == 0) shared->idle.notify_all();
  });
  return promise;
}

void Async::finish() {
  std::unique_lock<std::mutex> lock(shared_->mutex);
  shared_->idle.wait(lock, [this] { return shared_->running == 0; });
}

}  // namespace hotset
