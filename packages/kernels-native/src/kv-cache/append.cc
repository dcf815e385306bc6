// kv-cache/append: row [token, head] of keys and values goes to [page, head, place], in the cache's dtype.
//
// Phase 0, one task: each slot is read once, compared, and looked for in a hash table, so that a repeated one is a
// fault; what is left is written to scratch. Phase 1: tasks of 128 KiB of new rows (about 20 us of copying). f16 and
// bf16 round to nearest even by integer arithmetic; i8 divides in f64, as the reference does. Bound by memory in f32.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskFloats = 32 << 10;

// Scratch: targets [tokens], then the table, a power of two of entries at half load or less.
int64_t table_entries(int64_t tokens) {
  int64_t entries = 8;
  while (entries < 2 * tokens) entries *= 2;
  return entries;
}

int64_t task_tokens(const kv_cache_append_params& p) { return most(1, kTaskFloats / (p.kv_heads * (p.head_dim + p.value_dim))); }

void find_targets(const kv_cache_append_params& p, const Task& task) {
  int32_t* const targets = reinterpret_cast<int32_t*>(task.scratch);
  int32_t* const table = targets + p.tokens;
  const int64_t entries = table_entries(p.tokens);
  memset(table, 0xff, size_t(entries) * 4);
  for (int64_t t = 0; t < p.tokens; t++) {
    const int32_t slot = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.slots) + t));
    targets[t] = -1;
    if (slot == -1) continue;
    bool sound = slot >= 0 && slot < p.pages * p.page_size;
    if (sound) {
      int64_t at = (uint32_t(slot) * 0x9e3779b1u) & uint32_t(entries - 1);
      while (table[at] != -1 && table[at] != slot) at = (at + 1) & (entries - 1);
      sound = table[at] == -1;
      table[at] = slot;
    }
    if (sound) targets[t] = slot;
    else fail(*task.status, kv_cache_append_port_slots, t, slot);
  }
}

uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

uint16_t f16_of(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, m = bits & 0x7fffffff;
  if (m > 0x7f800000) return 0x7e00;
  if (m >= 0x477ff000) return uint16_t(sign | 0x7c00);
  // Below 2^-14 the spacing is 2^-24, which is that of floats at 0.5.
  if (m < 0x38800000) return uint16_t(sign | (bits_of(magnitude(x) + 0.5f) - 0x3f000000));
  const uint32_t rebased = m - 0x38000000;
  return uint16_t(sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13);
}

uint16_t bf16_of(float x) {
  const uint32_t bits = bits_of(x);
  return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void quantise(const float* row, int64_t dim, int8_t* out, float* scale) {
  float largest = 0;
  bool nan = false;
  for (int64_t i = 0; i < dim; i++) {
    nan |= is_nan(row[i]);
    if (magnitude(row[i]) > largest) largest = magnitude(row[i]);
  }
  const float step = float(double(largest) / 127);
  if (nan) {
    const uint32_t quiet = 0x7fc00000;
    memcpy(scale, &quiet, 4);
  } else *scale = step;
  if (nan || !(step > 0) || !is_finite(step)) {
    memset(out, 0, size_t(dim));
    return;
  }
  for (int64_t i = 0; i < dim; i++) {
    // Adding 1.5 * 2^52 rounds to a whole number, ties to even.
    const double whole = (double(row[i]) / double(step) + 6755399441055744.0) - 6755399441055744.0;
    out[i] = int8_t(whole > 127 ? 127 : whole < -127 ? -127 : whole);
  }
}

void store_row(const float* row, int64_t dim, void* rows, float* scale, int64_t at, uint32_t dtype) {
  const int64_t from = at * dim;
  if (dtype == dtype_f32) memcpy(static_cast<float*>(rows) + from, row, size_t(dim) * 4);
  else if (dtype == dtype_i8) quantise(row, dim, static_cast<int8_t*>(rows) + from, scale + at);
  else {
    uint16_t* const out = static_cast<uint16_t*>(rows) + from;
    if (dtype == dtype_f16) for (int64_t i = 0; i < dim; i++) out[i] = f16_of(row[i]);
    else for (int64_t i = 0; i < dim; i++) out[i] = bf16_of(row[i]);
  }
}

}  // namespace

void kv_cache_append_plan(const kv_cache_append_params& p, int, KernelPlan& plan) {
  plan.name = "rows";
  plan.scratch_bytes = 4 * (p.tokens + table_entries(p.tokens));
  plan.phases = p.tokens > 0 ? 2 : 0;
  plan.tasks[0] = 1;
  plan.tasks[1] = (p.tokens + task_tokens(p) - 1) / task_tokens(p);
}

void kv_cache_append_task(const kv_cache_append_params& p, const Task& task) {
  if (task.phase == 0) return find_targets(p, task);
  const int32_t* const targets = reinterpret_cast<const int32_t*>(task.scratch);
  const int64_t each = task_tokens(p), first = task.index * each;
  for (int64_t t = first; t < first + each && t < p.tokens; t++) {
    const int64_t slot = targets[t];
    if (slot < 0) continue;
    for (int64_t head = 0; head < p.kv_heads; head++) {
      const int64_t from = t * p.kv_heads + head, to = (slot / p.page_size * p.kv_heads + head) * p.page_size + slot % p.page_size;
      store_row(p.keys + from * p.head_dim, p.head_dim, p.key_pages, p.key_scale, to, p.key_pages_dtype);
      store_row(p.values + from * p.value_dim, p.value_dim, p.value_pages, p.value_scale, to, p.key_pages_dtype);
    }
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
