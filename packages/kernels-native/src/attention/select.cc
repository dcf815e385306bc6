// attention/select: the granules that score best, as ascending lists; first and last ones forced.
//
// Scores become unsigned keys of the same order (0 for a NaN), once a list. A radix select of four 8-bit digits finds the
// key of the last granule that is listed and how many of its equals are; a last pass lists in order. No sorting, no
// arithmetic but the sums of pooled heads: bits are the same everywhere. Six passes over keys that stay in the cache:
// bound by their latency, about 6 ns a granule.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

int64_t keys_bytes(const attention_select_params& p) { return round_up(p.granules * int64_t(sizeof(uint32_t)), 64); }

uint32_t key_of(float score) {
  if (score != score) return 0;
  score += 0.0f;  // -0 equals 0
  uint32_t bits;
  memcpy(&bits, &score, 4);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The key of the `wanted`-th best of count keys, wanted from 1 to count; `equals`: how many keys like it are among those.
uint32_t nth_key(const uint32_t* keys, int64_t count, int64_t wanted, int64_t& equals) {
  uint32_t prefix = 0, mask = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    uint32_t histogram[256] = {};
    for (int64_t i = 0; i < count; i++) histogram[keys[i] >> shift & 255] += (keys[i] & mask) == prefix;
    uint32_t digit = 255;
    for (; histogram[digit] < wanted; digit--) wanted -= histogram[digit];
    prefix |= digit << shift;
    mask |= 255u << shift;
  }
  equals = wanted;
  return prefix;
}

// Keys of granules first..end for a list: of its head, or of the sum over the heads.
void make_keys(const attention_select_params& p, int64_t b, int64_t list, int64_t first, int64_t end, uint32_t* keys) {
  const bool pooled = p.lists < p.heads;
  const float* const scores = p.scores + (b * p.heads + list) * p.granules;
  for (int64_t i = first; i < end; i++) {
    float score = scores[i];
    if (pooled)
      for (int64_t h = 1; h < p.heads; h++) score += scores[h * p.granules + i];
    keys[i] = key_of(score);
  }
}

void list_granules(const attention_select_params& p, int64_t row, uint32_t* keys, Status& status) {
  const int64_t b = row / p.lists;
  int32_t* const out = p.selected + row * p.k;
  const int64_t length = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.lengths) + b));
  int64_t listed = 0;
  if (length < 0 || length > p.granules * p.granularity) {
    fail(status, attention_select_port_lengths, b, length);
  } else {
    const int64_t all = (length + p.granularity - 1) / p.granularity;
    const int64_t total = least(p.budget ? least(p.budget, p.k) : p.k, all);
    const int64_t last = p.recent ? least(total, all - (length - least(p.recent, length)) / p.granularity) : 0;
    const int64_t first = least(total - last, (least(p.sink, length) + p.granularity - 1) / p.granularity);
    const int64_t end = all - last, wanted = total - first - last;
    for (int64_t i = 0; i < first; i++) out[listed++] = int32_t(i);
    if (wanted > 0) {
      make_keys(p, b, row % p.lists, first, end, keys);
      int64_t equals;
      const uint32_t least_key = nth_key(keys + first, end - first, wanted, equals);
      for (int64_t i = first; i < end; i++)
        if (keys[i] > least_key || (keys[i] == least_key && equals-- > 0)) out[listed++] = int32_t(i);
    }
    for (int64_t i = end; i < all; i++) out[listed++] = int32_t(i);
  }
  p.counts[row] = uint32_t(listed);
  for (; listed < p.k; listed++) out[listed] = -1;
}

}  // namespace

void attention_select_plan(const attention_select_params& p, int slots, KernelPlan& plan) {
  plan.name = "radix";
  plan.scratch_bytes = slots * keys_bytes(p);
  plan.phases = p.batch > 0;
  plan.tasks[0] = p.batch * p.lists;
}

void attention_select_task(const attention_select_params& p, const Task& task) {
  list_granules(p, task.index, reinterpret_cast<uint32_t*>(task.scratch + task.slot * keys_bytes(p)), *task.status);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
