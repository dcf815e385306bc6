#include "waits.h"

#include <chrono>
#include <cstring>

namespace hotset {

namespace {

using Clock = std::chrono::steady_clock;

// Polled for so long before the thread sleeps: most runs are done by then, and waking up takes as long again.
constexpr auto polling = std::chrono::microseconds(50);

cudaError_t wait_for(cudaEvent_t event) {
  const auto end = Clock::now() + polling;
  do {
    const cudaError_t state = cudaEventQuery(event);
    if (state != cudaErrorNotReady) return state;
  } while (Clock::now() < end);
  return cudaEventSynchronize(event);
}

// From a block, which the next part of a long copy overwrites, to ordinary memory; between the two copies of the stream.
struct Part {
  char* to;
  const char* from;
  size_t bytes;
};

void move_part(void* data) {
  const Part& part = *static_cast<const Part*>(data);
  std::memcpy(part.to, part.from, part.bytes);
}

constexpr size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }
constexpr size_t largest_part = Blocks::largest - aligned(sizeof(Status));

}  // namespace

struct Waits::Wait {
  explicit Wait(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}

  struct Target {
    napi_ref view;
    size_t bytes;
    const char* from;
  };

  Napi::Promise::Deferred deferred;
  cudaEvent_t start = nullptr, end = nullptr;
  bool timed = false;
  Clock::time_point queued = Clock::now();
  Block block;
  std::unique_ptr<char[]> large;
  std::vector<Part> parts;
  const Status* status = nullptr;
  std::vector<Target> targets;
  cudaError_t result = cudaSuccess;
};

Waits::Waits(Napi::Env env, Stream& stream)
    : env_(env), stream_(stream), settler_(Napi::ThreadSafeFunction::New(env, Napi::Function(), "hotset-cuda", 0, 1)) {
  settler_.Unref(env);
  // Hooks run from the last to the first: the thread has ended before its function is taken from it.
  napi_add_env_cleanup_hook(env, environment_ends, this);
  thread_ = std::thread([this] { loop(); });
}

Waits::~Waits() { finish(); }

void Waits::environment_ends(void* waits) { static_cast<Waits*>(waits)->finish(); }

void Waits::close() {
  closing_ = true;
  if (pending_ == 0) end();
}

void Waits::end() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
}

void Waits::finish() {
  if (!thread_.joinable()) return;
  end();
  thread_.join();
  napi_remove_env_cleanup_hook(env_, environment_ends, this);
}

void Waits::loop() {
  stream_.enter();
  for (;;) {
    std::unique_ptr<Wait> wait;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return !queued_.empty() || ending_; });
      if (queued_.empty()) break;
      wait = std::move(queued_.front());
      queued_.pop_front();
    }
    wait->result = wait_for(wait->end);
    Wait* const done = wait.release();
    const napi_status queued = settler_.NonBlockingCall(done, [this](Napi::Env env, Napi::Function, Wait* settled) {
      const std::unique_ptr<Wait> owner(settled);
      // Without an environment nothing of JavaScript may be touched; it frees its references itself.
      if (env != nullptr) settle(env, *settled);
    });
    if (queued != napi_ok) delete done;
  }
  settler_.Release();
  stream_.shut();
  closed_ = true;
}

void Waits::add(Napi::Env env, std::unique_ptr<Wait> wait) {
  if (pending_++ == 0) settler_.Ref(env);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queued_.push_back(std::move(wait));
  }
  changed_.notify_one();
}

Napi::Promise Waits::wait(Napi::Env env, Status* status, const std::vector<Readback>& readbacks) {
  auto wait = std::make_unique<Wait>(env);
  const Napi::Promise promise = wait->deferred.Promise();
  try {
    size_t total = status ? aligned(sizeof *status) : 0;
    const size_t head = total;
    for (const Readback& readback : readbacks) total += aligned(readback.to.ByteLength());
    const bool large = total > Blocks::largest;
    char* place = nullptr;
    if (large) {
      wait->large.reset(new char[total - head]);
      place = wait->large.get();
      wait->parts.reserve(total / largest_part + readbacks.size());
    }
    if (total) wait->block = stream_.blocks.take(stream_, large ? Blocks::largest : total);
    if (status) {
      stream_.check(cudaMemcpyAsync(wait->block.data, status, sizeof *status, cudaMemcpyDeviceToHost, stream_.handle()));
      stream_.check(cudaMemsetAsync(status, 0xff, sizeof *status, stream_.handle()));
      wait->status = reinterpret_cast<const Status*>(wait->block.data);
    }
    char* const staging = wait->block.data + head;
    if (!large) place = staging;
    for (const Readback& readback : readbacks) {
      const size_t bytes = readback.to.ByteLength();
      const char* const from = static_cast<const char*>(readback.from);
      if (!large && bytes) stream_.check(cudaMemcpyAsync(place, from, bytes, cudaMemcpyDeviceToHost, stream_.handle()));
      for (size_t at = 0; large && at < bytes; at += largest_part) {
        const size_t part = bytes - at < largest_part ? bytes - at : largest_part;
        wait->parts.push_back({place + at, staging, part});
        stream_.check(cudaMemcpyAsync(staging, from + at, part, cudaMemcpyDeviceToHost, stream_.handle()));
        stream_.check(cudaLaunchHostFunc(stream_.handle(), move_part, &wait->parts.back()));
      }
      wait->targets.push_back({nullptr, bytes, place});
      if (napi_create_reference(env, readback.to, 1, &wait->targets.back().view) != napi_ok) throw Failure(Failure::internal, "no reference to an array");
      place += aligned(bytes);
    }
    wait->end = stream_.take_event(false);
    stream_.check(cudaEventRecord(wait->end, stream_.handle()));
  } catch (const Failure& failure) {
    // What is queued already still writes to the memory of this wait.
    cudaStreamSynchronize(stream_.handle());
    wait->deferred.Reject(error_of(env, failure).Value());
    for (const Wait::Target& target : wait->targets)
      if (target.view) napi_delete_reference(env, target.view);
    give_back(*wait);
    return promise;
  }
  add(env, std::move(wait));
  return promise;
}

Napi::Promise Waits::time(Napi::Env env, const std::function<void()>& work) {
  auto wait = std::make_unique<Wait>(env);
  const Napi::Promise promise = wait->deferred.Promise();
  wait->timed = true;
  try {
    wait->start = stream_.take_event(true);
    wait->end = stream_.take_event(true);
    stream_.check(cudaEventRecord(wait->start, stream_.handle()));
    work();
    stream_.check(cudaEventRecord(wait->end, stream_.handle()));
  } catch (const Failure& failure) {
    wait->deferred.Reject(error_of(env, failure).Value());
    give_back(*wait);
    return promise;
  }
  add(env, std::move(wait));
  return promise;
}

void Waits::settle(Napi::Env env, Wait& wait) {
  Napi::HandleScope scope(env);
  if (--pending_ == 0) settler_.Unref(env);
  stream_.enter();
  try {
    if (wait.result != cudaSuccess) wait.deferred.Reject(error_of(env, stream_.failure(wait.result)).Value());
    else wait.deferred.Resolve(result_of(env, wait));
  } catch (const Napi::Error&) {
    // A worker that is being ended takes nothing any more.
  }
  for (const Wait::Target& target : wait.targets) napi_delete_reference(env, target.view);
  give_back(wait);
  if (closing_ && pending_ == 0) end();
}

Napi::Value Waits::result_of(Napi::Env env, Wait& wait) {
  for (const Wait::Target& target : wait.targets) {
    napi_value view, buffer;
    size_t length = 0, offset = 0;
    void* data = nullptr;
    if (napi_get_reference_value(env, target.view, &view) != napi_ok || napi_get_typedarray_info(env, view, nullptr, &length, &data, &buffer, &offset) != napi_ok) continue;
    // Whoever transferred it away meanwhile is told so by its length.
    if (length == target.bytes && length) std::memcpy(data, target.from, length);
  }
  if (wait.timed) {
    float milliseconds = 0;
    double us = 0;
    if (cudaEventElapsedTime(&milliseconds, wait.start, wait.end) == cudaSuccess) us = double(milliseconds) * 1e3;
    // A clock too coarse for so little: the host's, around all of it.
    if (!(us > 0)) us = std::chrono::duration<double, std::micro>(Clock::now() - wait.queued).count();
    return Napi::Number::New(env, us);
  }
  for (int port = 0; wait.status && port < kMaxPorts; port++) {
    const unsigned long long found = wait.status->first[port];
    if (found == no_fault) continue;
    Napi::Array fault = Napi::Array::New(env, 3);
    fault.Set(0u, port);
    fault.Set(1u, double(found >> 32));
    fault.Set(2u, double(uint32_t(found)));
    return fault;
  }
  return env.Undefined();
}

void Waits::give_back(Wait& wait) {
  if (wait.start) stream_.give_event(wait.start, wait.timed);
  if (wait.end) stream_.give_event(wait.end, wait.timed);
  stream_.blocks.give(wait.block);
}

Napi::Error error_of(Napi::Env env, const Failure& failure) {
  static const char* const kinds[] = {"memory", "device", "internal"};
  Napi::Error error = Napi::Error::New(env, failure.what());
  error.Value().Set("kind", kinds[failure.kind]);
  return error;
}

}  // namespace hotset
