// The addon's surface, one for all ops: describe, plan, bind, run, call, start, release, probe, map. A bound step is a number;
// JS owns the parameter struct and every tensor, and this side holds references to them.
#include <napi.h>

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "async.h"
#include "bound.h"
#include "dispatch.h"
#include "files.h"
#include "pool.h"
#include "probes.h"

namespace hotset {
namespace {

Napi::Error wrong(Napi::Env env, const std::string& what) { return Napi::Error::New(env, "hotset addon: " + what); }

const Isa& isa_of(Napi::Env env, const Napi::Value& value) {
  const std::string name = value.As<Napi::String>();
  const Isa* isa = find_isa(name.c_str());
  if (!isa || !isa->available()) throw wrong(env, "no instruction set " + name);
  return *isa;
}

const Kernel& kernel_of(Napi::Env env, const Isa& isa, const Napi::Value& value) {
  const std::string symbol = value.As<Napi::String>();
  const Kernel* kernel = find_kernel(isa, symbol.c_str());
  if (!kernel) throw wrong(env, "no kernel " + symbol);
  return *kernel;
}

// describe(): what was built and what this processor can run.
Napi::Value describe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Array sets = Napi::Array::New(env);
  for (int i = 0; i < isa_count; i++) {
    Napi::Object set = Napi::Object::New(env);
    set.Set("name", isas[i].name);
    set.Set("available", isas[i].available());
    set.Set("needs", isas[i].needs);
    Napi::Object kernels = Napi::Object::New(env);
    for (int k = 0; k < isas[i].kernel_count; k++) kernels.Set(isas[i].kernels[k].symbol, double(isas[i].kernels[k].params_bytes));
    set.Set("kernels", kernels);
    sets.Set(uint32_t(i), set);
  }
  return sets;
}

// plan(isa, symbol, params, slots): { kernel, scratchBytes } or the reason why not, as a string.
Napi::Value plan(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Kernel& kernel = kernel_of(env, isa_of(env, info[0]), info[1]);
  Napi::Uint8Array params = info[2].As<Napi::Uint8Array>();
  if (int64_t(params.ByteLength()) != kernel.params_bytes) throw wrong(env, "parameters of another size");
  KernelPlan result;
  kernel.plan(params.Data(), info[3].As<Napi::Number>().Int32Value(), &result);
  if (result.refusal) return Napi::String::New(env, result.refusal);
  Napi::Object out = Napi::Object::New(env);
  out.Set("kernel", result.name);
  out.Set("scratchBytes", double(result.scratch_bytes));
  return out;
}

// Writes the address of each tensor (0: absent) into the parameters. False where the parts do not fit the kernel.
bool set_pointers(napi_env env, const Kernel& kernel, Napi::Uint8Array& params, const Napi::Uint32Array& offsets, const Napi::Array& tensors, void* nowhere) {
  if (int64_t(params.ByteLength()) != kernel.params_bytes || int(offsets.ElementLength()) != kernel.tensors || int(tensors.Length()) != kernel.tensors) return false;
  for (uint32_t i = 0; i < uint32_t(kernel.tensors); i++) {
    napi_value value, buffer;
    napi_valuetype type;
    void* data = nullptr;
    size_t length, offset;
    if (napi_get_element(env, tensors, i, &value) != napi_ok || napi_typeof(env, value, &type) != napi_ok) return false;
    if (type != napi_undefined) {
      if (napi_get_typedarray_info(env, value, nullptr, &length, &data, &buffer, &offset) != napi_ok) return false;
      // A null pointer means an absent tensor to a kernel; an empty one is never read.
      if (!data) data = nowhere;
    }
    if (offsets[i] + sizeof data > params.ByteLength()) return false;
    std::memcpy(params.Data() + offsets[i], &data, sizeof data);
  }
  return true;
}

// bind(isa, symbol, params, slots, scratchBytes, offsets, tensors): a step's number, or -1 without memory.
Napi::Value bind(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Kernel& kernel = kernel_of(env, isa_of(env, info[0]), info[1]);
  Napi::Uint8Array params = info[2].As<Napi::Uint8Array>();
  const Napi::Array tensors = info[6].As<Napi::Array>();
  auto bound = std::make_unique<Bound>(kernel, info[3].As<Napi::Number>().Int32Value());
  if (!bound->allocate(info[4].As<Napi::Number>().Int64Value())) return Napi::Number::New(env, -1);
  if (!set_pointers(env, kernel, params, info[5].As<Napi::Uint32Array>(), tensors, bound->scratch)) throw wrong(env, "parameters or tensors that do not fit the kernel");
  bound->params = params.Data();
  bound->keep = Napi::Persistent(Napi::Object::New(env));
  bound->keep.Set("params", params);
  bound->keep.Set("tensors", tensors);
  return Napi::Number::New(env, Steps::of(env).add(std::move(bound)));
}

Napi::Value fault_value(Napi::Env env, const Status& status) {
  if (status.code == status_ok) return env.Undefined();
  Napi::Array out = Napi::Array::New(env, 4);
  out.Set(0u, status.code);
  out.Set(1u, status.port);
  out.Set(2u, double(status.index));
  out.Set(3u, double(status.value));
  return out;
}

// run(step): undefined, or the fault. The hot path: plain Node-API, no allocation unless there is a fault.
napi_value run(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  void* data;
  uint32_t step;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, &data) != napi_ok || napi_get_value_uint32(env, argument, &step) != napi_ok) return nullptr;
  Bound* bound = static_cast<Steps*>(data)->find(step);
  if (!bound) {
    napi_throw_error(env, nullptr, "hotset addon: no such step");
    return nullptr;
  }
  bound->run();
  const Status status = first_fault(bound->statuses.data(), bound->slots);
  return status.code == status_ok ? nullptr : static_cast<napi_value>(fault_value(env, status));
}

// call(isa, symbol, params, slots, scratchBytes, offsets, tensors): bind, run and release in one; -1 without memory.
Napi::Value call(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Kernel& kernel = kernel_of(env, isa_of(env, info[0]), info[1]);
  Napi::Uint8Array params = info[2].As<Napi::Uint8Array>();
  const int slots = info[3].As<Napi::Number>().Int32Value();
  Steps& steps = Steps::of(env);
  char* const scratch = steps.scratch(info[4].As<Napi::Number>().Int64Value());
  if (!scratch) return Napi::Number::New(env, -1);
  if (!set_pointers(env, kernel, params, info[5].As<Napi::Uint32Array>(), info[6].As<Napi::Array>(), scratch)) throw wrong(env, "parameters or tensors that do not fit the kernel");
  std::vector<Status> statuses(size_t(slots < 1 ? 1 : slots));
  run_kernel(kernel, params.Data(), scratch, slots, statuses.data());
  steps.trim();
  return fault_value(env, first_fault(statuses.data(), int(statuses.size())));
}

// start(step): a promise of the same.
Napi::Value start(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Steps& steps = Steps::of(env);
  Bound* bound = steps.find(info[0].As<Napi::Number>().Uint32Value());
  if (!bound) throw wrong(env, "no such step");
  return steps.async.start(env, *bound, [](Napi::Env e, Bound& b) { return fault_value(e, first_fault(b.statuses.data(), b.slots)); });
}

void release(const Napi::CallbackInfo& info) { Steps::of(info.Env()).remove(info[0].As<Napi::Number>().Uint32Value()); }

// probe(isa, kind, bytes, threads): GB/s of read or copy, 10^9 operations a second of madd.
Napi::Value probe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const double rate = measure(*isa_of(env, info[0]).probes, info[1].As<Napi::String>().Utf8Value(), info[2].As<Napi::Number>().Int64Value(), info[3].As<Napi::Number>().Int32Value());
  if (rate < 0) throw wrong(env, "no memory for the probe");
  return Napi::Number::New(env, rate);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  Steps* steps = new Steps;
  env.SetInstanceData<Steps>(steps);
  exports.Set("describe", Napi::Function::New(env, describe));
  exports.Set("plan", Napi::Function::New(env, plan));
  exports.Set("bind", Napi::Function::New(env, bind));
  napi_value hot;
  if (napi_create_function(env, "run", NAPI_AUTO_LENGTH, run, steps, &hot) != napi_ok) throw wrong(env, "could not make run");
  exports.Set("run", Napi::Value(env, hot));
  exports.Set("call", Napi::Function::New(env, call));
  exports.Set("start", Napi::Function::New(env, start));
  exports.Set("release", Napi::Function::New(env, release));
  exports.Set("probe", Napi::Function::New(env, probe));
  exports.Set("map", Napi::Function::New(env, map_file));
  return exports;
}

}  // namespace
}  // namespace hotset

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return hotset::init(env, exports); }
NODE_API_MODULE(hotset, Init)
