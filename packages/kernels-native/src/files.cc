#include "files.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>

#include <new>

namespace hotset {
namespace {

struct Mapping {
  void* data;
  size_t bytes;
};

void unmap(napi_env, void*, void* hint) {
  Mapping* mapping = static_cast<Mapping*>(hint);
  munmap(mapping->data, mapping->bytes);
  delete mapping;
}

}  // namespace

Napi::Value map_file(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const int file = info[0].As<Napi::Number>().Int32Value();
  const int64_t bytes = info[1].As<Napi::Number>().Int64Value();
  // Pages beyond the end of a file end the process. The size by lseek: fstat is a symbol of glibc 2.33.
  const off_t at = lseek(file, 0, SEEK_CUR), end = lseek(file, 0, SEEK_END);
  if (at < 0 || lseek(file, at, SEEK_SET) < 0 || bytes <= 0 || int64_t(end) < bytes) return env.Undefined();
  void* data = mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  if (data == MAP_FAILED) return env.Undefined();
  Mapping* mapping = new (std::nothrow) Mapping{data, size_t(bytes)};
  napi_value buffer;
  if (!mapping || napi_create_external_arraybuffer(env, data, size_t(bytes), unmap, mapping, &buffer) != napi_ok) {
    // Runtimes that keep all memory in one cage allow no memory of others.
    munmap(data, size_t(bytes));
    delete mapping;
    return env.Undefined();
  }
  return Napi::Value(env, buffer);
}

}  // namespace hotset

#else

namespace hotset {

Napi::Value map_file(const Napi::CallbackInfo& info) { return info.Env().Undefined(); }

}  // namespace hotset

#endif
