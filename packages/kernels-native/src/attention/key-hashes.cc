// attention/key-hashes: the signs of each new key, as bits, into its slot.
//
// Comparisons with 0 give a vector's bits at once. A task is 128 KiB of new keys (about 10 us), whose bandwidth bounds it.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskFloats = 32 << 10;

int64_t task_tokens(const attention_key_hashes_params& p) { return most(1, kTaskFloats / (p.kv_heads * p.bits)); }

uint32_t signs_of(const float* row) {
  uint32_t word = 0;
  constexpr uint32_t kAll = uint32_t((uint64_t(1) << kLanes) - 1);
  for (int i = 0; i < 32; i += kLanes) word |= (~not_less(load(row + i), zero()) & kAll) << i;
  return word;
}

}  // namespace

void attention_key_hashes_plan(const attention_key_hashes_params& p, int, KernelPlan& plan) {
  plan.name = "rows";
  plan.phases = p.tokens > 0;
  plan.tasks[0] = (p.tokens + task_tokens(p) - 1) / task_tokens(p);
}

void attention_key_hashes_task(const attention_key_hashes_params& p, const Task& task) {
  const int64_t each = task_tokens(p), words = p.bits / 32;
  for (int64_t t = task.index * each; t < least(p.tokens, (task.index + 1) * each); t++) {
    const int32_t slot = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.slots) + t));
    if (slot == -1) continue;
    if (slot < 0 || slot >= p.pages * p.page_size) {
      fail(*task.status, attention_key_hashes_port_slots, t, slot);
      continue;
    }
    for (int64_t head = 0; head < p.kv_heads; head++) {
      const float* const key = p.keys + (t * p.kv_heads + head) * p.bits;
      uint32_t* const hash = p.hash_pages + ((slot / p.page_size * p.kv_heads + head) * p.page_size + slot % p.page_size) * words;
      for (int64_t w = 0; w < words; w++) hash[w] = signs_of(key + w * 32);
    }
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
