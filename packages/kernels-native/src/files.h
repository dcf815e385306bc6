// Files in memory: the addon's third group, beside run and memory.
#pragma once
#include <napi.h>

namespace hotset {

// map(fd, bytes): the first `bytes` of an open file as an ArrayBuffer, read as it is touched; what is written stays in this
// process. Undefined where the system cannot. The pages go with the ArrayBuffer.
Napi::Value map_file(const Napi::CallbackInfo& info);

}  // namespace hotset
