// model/embedding: out_t = table[ids_t], widened to f32. Exact: each value is widened, and of q8_0 multiplied by its
// block's scale, without rounding. Ids are compared where they are loaded, and used as compared. A task is 256 KiB of
// results: bound by bandwidth.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/q8.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskFloats = 64 << 10;

int64_t task_tokens(const model_embedding_params& p) { return most(1, kTaskFloats / p.dim); }

template <class T>
void widen(const T* row, int64_t dim, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) store(out + i, load(row + i));
  if (i == dim) return;
  T rest[kLanes] = {};
  float last[kLanes];
  memcpy(rest, row + i, size_t(dim - i) * sizeof(T));
  store(last, load(rest));
  memcpy(out + i, last, size_t(dim - i) * sizeof(float));
}

void widen_blocks(const q8* row, int64_t dim, float* out) {
  for (int64_t b = 0; b < dim / kQ8; b++) {
    const f32v scale = splat(to_float(row[b].scale));
    for (int i = 0; i < kQ8; i += kLanes) store(out + b * kQ8 + i, mul(scale, load(row[b].values + i)));
  }
}

void look_up(const model_embedding_params& p, int64_t token, Status& status) {
  const int32_t id = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.ids) + token));
  float* const out = p.out + token * p.dim;
  if (id < 0 || id >= p.vocab) {
    fail(status, model_embedding_port_ids, token, id);
    memset(out, 0, size_t(p.dim) * sizeof(float));
    return;
  }
  switch (p.table_dtype) {
    case dtype_f32: memcpy(out, static_cast<const float*>(p.table) + id * p.dim, size_t(p.dim) * sizeof(float)); break;
    case dtype_f16: widen(static_cast<const f16*>(p.table) + id * p.dim, p.dim, out); break;
    case dtype_bf16: widen(static_cast<const bf16*>(p.table) + id * p.dim, p.dim, out); break;
    default: widen_blocks(static_cast<const q8*>(p.table) + id * (p.dim / kQ8), p.dim, out);
  }
}

}  // namespace

void model_embedding_plan(const model_embedding_params& p, int, KernelPlan& plan) {
  plan.name = "rows";
  plan.phases = p.tokens > 0;
  plan.tasks[0] = (p.tokens + task_tokens(p) - 1) / task_tokens(p);
}

void model_embedding_task(const model_embedding_params& p, const Task& task) {
  const int64_t each = task_tokens(p), first = task.index * each;
  for (int64_t token = first; token < first + each && token < p.tokens; token++) look_up(p, token, *task.status);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
