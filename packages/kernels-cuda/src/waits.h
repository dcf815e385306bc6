// Waiting for the device without holding JavaScript up: a thread of its own waits for events, in the order in which they
// were queued, and promises settle on the JavaScript thread. Copies to the host pass through page-locked blocks; the
// caller's arrays are written only there, where it is known that they are still the caller's.
#pragma once
#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "stream.h"

namespace hotset {

struct Readback {
  const void* from;
  Napi::Uint8Array to;
};

class Waits {
 public:
  Waits(Napi::Env env, Stream& stream);
  ~Waits();

  // Queues copies of memory and, where there is one, of a status, which is then cleared. The promise is of undefined, or
  // of the first fault [port, index, value]; it is rejected with what went wrong on the device.
  Napi::Promise wait(Napi::Env env, Status* status, const std::vector<Readback>& readbacks);

  // Queues work between two events: a promise of microseconds.
  Napi::Promise time(Napi::Env env, const std::function<void()>& work);

  // When every promise has settled, the thread shuts the stream and ends. Nothing may be queued any more.
  void close();
  bool closed() const { return closed_; }

  // Now, whatever is under way, and waits for it: the environment ends.
  void finish();

 private:
  struct Wait;
  void loop();
  void add(Napi::Env env, std::unique_ptr<Wait> wait);
  void settle(Napi::Env env, Wait& wait);
  Napi::Value result_of(Napi::Env env, Wait& wait);
  void give_back(Wait& wait);
  void end();
  static void environment_ends(void* waits);

  const napi_env env_;
  Stream& stream_;
  Napi::ThreadSafeFunction settler_;
  int pending_ = 0;  // on the JavaScript thread: promises that have not settled keep the process alive
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<Wait>> queued_;
  bool closing_ = false;  // on the JavaScript thread
  bool ending_ = false;
  std::atomic<bool> closed_{false};
  std::thread thread_;
};

// The error as JavaScript gets it, with `kind`: memory, device or internal.
Napi::Error error_of(Napi::Env env, const Failure& failure);

}  // namespace hotset
