// attention/select: the granules that score best, as ascending lists; first and last ones forced.
//
// Scores become unsigned keys of the same order (0 for a NaN), once a list. A radix select of four 8-bit digits finds the
// key of the last granule that is listed and how many of its equals are; keys with other digits are left behind after each. A
// last pass lists in order, without branches. No sorting, no arithmetic but the sums of pooled heads: bits are the same
// everywhere. Masses share few first digits: four histograms side by side, so that no count waits for the one before.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

// Keys, and those that are left after a digit.
int64_t keys_bytes(const attention_select_params& p) { return 2 * round_up(p.granules * int64_t(sizeof(uint32_t)), 64); }

uint32_t key_of(float score) {
  const float positive = score + 0.0f;  // -0 equals 0
  uint32_t bits;
  memcpy(&bits, &positive, 4);
  const uint32_t key = bits ^ (uint32_t(int32_t(bits) >> 31) | 0x80000000u);
  return score == score ? key : 0;
}

// The key of the `wanted`-th best of count keys, wanted from 1 to count; `equals`: how many keys like it are among those.
// `rest` has room for all of them.
uint32_t nth_key(const uint32_t* keys, int64_t count, int64_t wanted, uint32_t* rest, int64_t& equals) {
  uint32_t histograms[4 * 256];
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    // A few keys need no four, and less to clear.
    const bool fours = count >= 256;
    memset(histograms, 0, fours ? sizeof histograms : sizeof histograms / 4);
    int64_t i = 0;
    for (; fours && i + 4 <= count; i += 4) {
      histograms[keys[i] >> shift & 255]++;
      histograms[256 + (keys[i + 1] >> shift & 255)]++;
      histograms[512 + (keys[i + 2] >> shift & 255)]++;
      histograms[768 + (keys[i + 3] >> shift & 255)]++;
    }
    for (; i < count; i++) histograms[keys[i] >> shift & 255]++;
    for (int at = 0; fours && at < 256; at++) histograms[at] += histograms[256 + at] + histograms[512 + at] + histograms[768 + at];
    uint32_t digit = 255;
    for (; histograms[digit] < wanted; digit--) wanted -= histograms[digit];
    prefix |= digit << shift;
    int64_t kept = 0;
    for (i = 0; i < count; i++) {
      const uint32_t key = keys[i];
      rest[kept] = key;
      kept += (key >> shift & 255) == digit;
    }
    keys = rest;
    count = kept;
  }
  equals = wanted;
  return prefix;
}

// Keys of granules first..end for a list: of its head, or of the sum over the heads.
void make_keys(const attention_select_params& p, int64_t b, int64_t list, int64_t first, int64_t end, uint32_t* keys) {
  const bool pooled = p.lists < p.heads;
  const float* const scores = p.scores + (b * p.heads + list) * p.granules;
  if (!pooled)
    for (int64_t i = first; i < end; i++) keys[i] = key_of(scores[i]);
  for (int64_t i = first; pooled && i < end; i++) {
    float score = scores[i];
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
      const uint32_t least_key = nth_key(keys + first, end - first, wanted, keys + keys_bytes(p) / 8, equals);
      // A place that is not taken is written again; the last one that is ends it.
      for (int64_t i = first; listed < first + wanted; i++) {
        const bool same = keys[i] == least_key && equals > 0;
        out[listed] = int32_t(i);
        listed += keys[i] > least_key || same;
        equals -= same;
      }
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
