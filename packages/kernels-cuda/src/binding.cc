// The addon's surface, one for all ops. A queue, and a step of it, are numbers; addresses are bigints; JavaScript owns the
// parameter structs. What goes wrong is an Error with `kind`: memory, device or internal.
#include <napi.h>

#include <cstring>
#include <new>
#include <string>

#include "describe.h"
#include "queue.h"

namespace hotset {
namespace {

Napi::Error wrong(Napi::Env env, const std::string& what) { return Napi::Error::New(env, "hotset cuda addon: " + what); }

using Call = Napi::Value (*)(const Napi::CallbackInfo&);
template <Call call>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return call(info);
  } catch (const Failure& failure) {
    throw error_of(info.Env(), failure);
  } catch (const std::bad_alloc&) {
    throw error_of(info.Env(), Failure(Failure::memory, "no memory on the host"));
  }
}

uint32_t number(const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); }

Queue& queue_of(const Napi::CallbackInfo& info) {
  Queue* const queue = Queues::of(info.Env()).find(number(info[0]));
  if (!queue) throw wrong(info.Env(), "no such queue");
  queue->stream.enter();
  return *queue;
}

Step& step_of(const Napi::CallbackInfo& info, Queue& queue) {
  Step* const step = queue.find(number(info[1]));
  if (!step) throw wrong(info.Env(), "no such step");
  return *step;
}

char* address_of(Napi::Env env, const Napi::Value& value) {
  bool lossless = false;
  const uint64_t address = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) throw wrong(env, "no address");
  return reinterpret_cast<char*>(address);
}

Napi::Value as_address(Napi::Env env, const void* address) { return Napi::BigInt::New(env, uint64_t(reinterpret_cast<uintptr_t>(address))); }

// describe(): versions, devices, kernels; and why there is no device.
Napi::Value describe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Machine machine = describe_machine();
  Napi::Object out = Napi::Object::New(env);
#ifdef HOTSET_CUDA_EMULATED
  out.Set("emulated", true);
#else
  out.Set("emulated", false);
#endif
  out.Set("runtime", machine.runtime);
  out.Set("driver", machine.driver);
  out.Set("reason", machine.reason);
  Napi::Array devices = Napi::Array::New(env);
  for (const DeviceInfo& device : machine.devices) {
    Napi::Object one = Napi::Object::New(env);
    one.Set("name", device.name);
    one.Set("arch", device.facts.arch);
    one.Set("bytes", double(device.bytes));
    one.Set("multiprocessors", device.facts.multiprocessors);
    devices.Set(devices.Length(), one);
  }
  out.Set("devices", devices);
  Napi::Object table = Napi::Object::New(env);
  for (int i = 0; i < kernel_count; i++) table.Set(kernels[i].symbol, double(kernels[i].params_bytes));
  out.Set("kernels", table);
  return out;
}

// open(device): a queue.
Napi::Value open(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), Queues::of(info.Env()).open(info.Env(), int(number(info[0])))); }

Napi::Value close(const Napi::CallbackInfo& info) {
  Queues::of(info.Env()).close(number(info[0]));
  return info.Env().Undefined();
}

// check(queue): runs a small kernel and waits for it. Whether it gave what it should.
Napi::Value check(const Napi::CallbackInfo& info) {
  Stream& stream = queue_of(info).stream;
  constexpr int count = 64;
  float sums[count] = {};
  char* const memory = static_cast<char*>(stream.alloc(sizeof sums, true));
  stream.check(probe_check(reinterpret_cast<float*>(memory), stream.handle()));
  stream.check(cudaMemcpyAsync(sums, memory, sizeof sums, cudaMemcpyDeviceToHost, stream.handle()));
  stream.check(cudaStreamSynchronize(stream.handle()));
  stream.free(memory);
  bool right = true;
  for (int i = 0; i < count; i++) right = right && sums[i] == float(3 * i);
  return Napi::Boolean::New(info.Env(), right);
}

// alloc(queue, bytes): the address of zeroed memory.
Napi::Value alloc(const Napi::CallbackInfo& info) { return as_address(info.Env(), queue_of(info).stream.alloc(info[1].As<Napi::Number>().Int64Value(), true)); }

// free(queue, address): also of a queue that was closed, which has freed it already.
Napi::Value free_memory(const Napi::CallbackInfo& info) {
  Queue* const queue = Queues::of(info.Env()).find(number(info[0]));
  if (!queue) return info.Env().Undefined();
  queue->stream.enter();
  queue->stream.free(address_of(info.Env(), info[1]));
  return info.Env().Undefined();
}

// write(queue, address, source)
Napi::Value write(const Napi::CallbackInfo& info) {
  Queue& queue = queue_of(info);
  const Napi::Uint8Array source = info[2].As<Napi::Uint8Array>();
  queue.stream.write(address_of(info.Env(), info[1]), reinterpret_cast<const char*>(source.Data()), source.ByteLength());
  return info.Env().Undefined();
}

// wait(queue, step or undefined, addresses, targets): a promise of undefined or of the step's first fault.
Napi::Value wait(const Napi::CallbackInfo& info) {
  Queue& queue = queue_of(info);
  Status* const status = info[1].IsUndefined() ? nullptr : step_of(info, queue).run().status;
  const Napi::BigUint64Array addresses = info[2].As<Napi::BigUint64Array>();
  const Napi::Array targets = info[3].As<Napi::Array>();
  std::vector<Readback> readbacks;
  for (uint32_t i = 0; i < targets.Length() && i < addresses.ElementLength(); i++)
    readbacks.push_back({reinterpret_cast<const void*>(addresses[i]), targets.Get(i).As<Napi::Uint8Array>()});
  return queue.waits.wait(info.Env(), status, readbacks);
}

const Kernel& kernel_of(const Napi::CallbackInfo& info, const Napi::Uint8Array& params) {
  const std::string symbol = info[1].As<Napi::String>();
  const Kernel* const kernel = find_kernel(symbol.c_str());
  if (!kernel) throw wrong(info.Env(), "no kernel " + symbol);
  if (int64_t(params.ByteLength()) != kernel->params_bytes) throw wrong(info.Env(), "parameters of another size");
  return *kernel;
}

// plan(queue, symbol, params): { kernel, scratchBytes } or the reason why not, as a string.
Napi::Value plan(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Queue& queue = queue_of(info);
  const Napi::Uint8Array params = info[2].As<Napi::Uint8Array>();
  KernelPlan result;
  kernel_of(info, params).plan(params.Data(), queue.stream.facts(), &result);
  if (result.refusal) return Napi::String::New(env, result.refusal);
  Napi::Object out = Napi::Object::New(env);
  out.Set("kernel", result.name);
  out.Set("scratchBytes", double(result.scratch_bytes));
  return out;
}

// bind(queue, symbol, params, scratchBytes, offsets, addresses): a step. An address of 0 is an absent tensor.
Napi::Value bind(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Queue& queue = queue_of(info);
  Napi::Uint8Array params = info[2].As<Napi::Uint8Array>();
  const Kernel& kernel = kernel_of(info, params);
  const Napi::Uint32Array offsets = info[4].As<Napi::Uint32Array>();
  const Napi::BigUint64Array addresses = info[5].As<Napi::BigUint64Array>();
  if (int(offsets.ElementLength()) != kernel.tensors || addresses.ElementLength() != offsets.ElementLength()) throw wrong(env, "tensors that do not fit the kernel");
  for (size_t i = 0; i < offsets.ElementLength(); i++) {
    const uint64_t address = addresses[i];
    if (offsets[i] + sizeof address > params.ByteLength()) throw wrong(env, "parameters that do not fit the kernel");
    std::memcpy(params.Data() + offsets[i], &address, sizeof address);
  }
  Step step;
  step.kernel = &kernel;
  step.memory = static_cast<char*>(queue.stream.alloc(Step::status_bytes + info[3].As<Napi::Number>().Int64Value(), false));
  const cudaError_t cleared = cudaMemsetAsync(step.memory, 0xff, Step::status_bytes, queue.stream.handle());
  if (cleared != cudaSuccess) {
    queue.stream.free(step.memory);
    throw queue.stream.failure(cleared);
  }
  step.params = params.Data();
  step.keep = Napi::Persistent(params);
  return Napi::Number::New(env, queue.add(std::move(step)));
}

// submit(queue, step): queues one run.
Napi::Value submit(const Napi::CallbackInfo& info) {
  Queue& queue = queue_of(info);
  const Step& step = step_of(info, queue);
  queue.stream.run(*step.kernel, step.run());
  return info.Env().Undefined();
}

// encode(queue, step, stream): one run on the caller's stream.
Napi::Value encode(const Napi::CallbackInfo& info) {
  Queue& queue = queue_of(info);
  const Step& step = step_of(info, queue);
  queue.stream.encode(reinterpret_cast<cudaStream_t>(address_of(info.Env(), info[2])), *step.kernel, step.run());
  return info.Env().Undefined();
}

// time(queue, step): a promise of the microseconds of one run.
Napi::Value time(const Napi::CallbackInfo& info) {
  Queue& queue = queue_of(info);
  const Step& step = step_of(info, queue);
  return queue.waits.time(info.Env(), [&] { queue.stream.run(*step.kernel, step.run()); });
}

Napi::Value release(const Napi::CallbackInfo& info) {
  Queue* const queue = Queues::of(info.Env()).find(number(info[0]));
  if (!queue) return info.Env().Undefined();
  queue->stream.enter();
  queue->remove(number(info[1]));
  return info.Env().Undefined();
}

// stream(queue): its handle.
Napi::Value stream(const Napi::CallbackInfo& info) { return as_address(info.Env(), queue_of(info).stream.handle()); }

// pointer(queue, address, bytes): undefined, or why kernels cannot use this range.
Napi::Value pointer(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Stream& stream = queue_of(info).stream;
  char* const first = address_of(env, info[1]);
  const int64_t bytes = info[2].As<Napi::Number>().Int64Value();
  // Of a range only its ends can be asked about.
  for (const char* at : {first, first + (bytes > 0 ? bytes - 1 : 0)}) {
    cudaPointerAttributes attributes = {};
    const cudaError_t error = cudaPointerGetAttributes(&attributes, at);
    if (error != cudaSuccess) {
      cudaGetLastError();
      return Napi::String::New(env, "a pointer that CUDA does not know (" + text_of(error) + ")");
    }
    const bool usable = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
    if (!usable && at != first) return Napi::String::New(env, "a device pointer with fewer than " + std::to_string(bytes) + " bytes behind it");
    if (!usable) return Napi::String::New(env, attributes.type == cudaMemoryTypeHost ? "a pointer to memory of the host" : "a pointer that is not to memory of a CUDA device");
    if (attributes.type == cudaMemoryTypeDevice && attributes.device != stream.device()) return Napi::String::New(env, "a pointer of device " + std::to_string(attributes.device) + ", while this is device " + std::to_string(stream.device()));
  }
  return env.Undefined();
}

// probe(queue, kind, data, bytes, sums): the amount of work of one launch, and a promise of its microseconds.
Napi::Value probe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Queue& queue = queue_of(info);
  const std::string kind = info[1].As<Napi::String>();
  const auto* const data = reinterpret_cast<const float*>(address_of(env, info[2]));
  const int64_t bytes = info[3].As<Napi::Number>().Int64Value();
  auto* const sums = reinterpret_cast<float*>(address_of(env, info[4]));
  Stream& stream = queue.stream;
  double amount = 0;
  const Napi::Promise us = queue.waits.time(env, [&] {
    if (kind == "read") stream.check(probe_read(data, bytes, sums, stream.facts(), stream.handle(), &amount));
    else if (kind == "madd") stream.check(probe_madd(sums, stream.facts(), stream.handle(), &amount));
    else stream.check(probe_madd_i8(sums, stream.facts(), stream.handle(), &amount));
  });
  Napi::Object out = Napi::Object::New(env);
  out.Set("amount", amount);
  out.Set("us", us);
  return out;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData<Queues>(new Queues);
  const auto add = [&](const char* name, Call call) { exports.Set(name, Napi::Function::New(env, call, name)); };
  add("describe", guarded<describe>);
  add("open", guarded<open>);
  add("close", guarded<close>);
  add("check", guarded<check>);
  add("alloc", guarded<alloc>);
  add("free", guarded<free_memory>);
  add("write", guarded<write>);
  add("wait", guarded<wait>);
  add("plan", guarded<plan>);
  add("bind", guarded<bind>);
  add("submit", guarded<submit>);
  add("encode", guarded<encode>);
  add("time", guarded<time>);
  add("release", guarded<release>);
  add("stream", guarded<stream>);
  add("pointer", guarded<pointer>);
  add("probe", guarded<probe>);
  exports.Set("probeSums", double(probe_sums));
  return exports;
}

}  // namespace
}  // namespace hotset

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return hotset::init(env, exports); }
NODE_API_MODULE(hotset_cuda, Init)
