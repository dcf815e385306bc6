// attention/hash-scores: score_g = -min over the tokens of g of sum_h |hash(q_h) xor hash_t|.
//
// Hashes of the queries are made once a task; each cached word is loaded once and compared with those of all heads of its KV
// head, 64 bits at a time. Counts are whole numbers: the bits are the same everywhere. A task is 4096 tokens (64 KiB at 128
// bits). Bound by the counting: two instructions a word and head with popcnt, a dozen without (SSE2).
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskTokens = 4096;

int64_t granules_of(const attention_hash_scores_params& p) { return p.max_pages * p.page_size / p.granularity; }
int64_t task_granules(const attention_hash_scores_params& p) { return most(1, kTaskTokens / p.granularity); }
int64_t blocks_of(const attention_hash_scores_params& p) { return (granules_of(p) + task_granules(p) - 1) / task_granules(p); }
// Words of a hash, in whole 64 bits.
int64_t doubles_of(const attention_hash_scores_params& p) { return (p.bits / 32 + 1) / 2; }
int64_t slot_bytes(const attention_hash_scores_params& p) { return round_up(p.query_heads / p.kv_heads * doubles_of(p) * 8, 64); }

int64_t ones(uint64_t x) {
#if defined(HOTSET_ISA_SSE2)
  // Without the instruction the compiler would call a function of tables.
  x -= x >> 1 & 0x5555555555555555u;
  x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return int64_t(x * 0x0101010101010101u >> 56);
#elif defined(_MSC_VER) && !defined(__clang__)
  return int64_t(__popcnt64(x));
#else
  return __builtin_popcountll(x);
#endif
}

// 64 bits of a hash, or the 32 that are left.
uint64_t two_words(const uint32_t* hash, int64_t at, int64_t words) {
  uint64_t both = hash[at];
  if (at + 1 < words) both |= uint64_t(hash[at + 1]) << 32;
  return both;
}

void prepare(const attention_hash_scores_params& p, int64_t b, int64_t head, uint64_t* hashes) {
  const int64_t group = p.query_heads / p.kv_heads;
  memset(hashes, 0, size_t(group * doubles_of(p)) * 8);
  for (int64_t h = 0; h < group; h++) {
    const float* const query = p.queries + (b * p.query_heads + head * group + h) * p.bits;
    for (int64_t i = 0; i < p.bits; i++) hashes[h * doubles_of(p) + i / 64] |= uint64_t(query[i] < 0) << i % 64;
  }
}

// The least distance of some tokens' hashes.
int64_t nearest(const attention_hash_scores_params& p, const uint32_t* rows, int64_t tokens, const uint64_t* hashes) {
  const int64_t group = p.query_heads / p.kv_heads, words = p.bits / 32, doubles = doubles_of(p);
  int64_t best = group * p.bits;
  for (int64_t t = 0; t < tokens; t++) {
    int64_t distance = 0;
    for (int64_t w = 0; w < doubles; w++) {
      const uint64_t key = two_words(rows + t * words, 2 * w, words);
      for (int64_t h = 0; h < group; h++) distance += ones(key ^ hashes[h * doubles + w]);
    }
    best = least(best, distance);
  }
  return best;
}

}  // namespace

void attention_hash_scores_plan(const attention_hash_scores_params& p, int slots, KernelPlan& plan) {
  plan.name = "words";
  plan.scratch_bytes = slots * slot_bytes(p);
  plan.phases = p.batch > 0;
  plan.tasks[0] = p.batch * p.kv_heads * blocks_of(p);
}

void attention_hash_scores_task(const attention_hash_scores_params& p, const Task& task) {
  const int64_t blocks = blocks_of(p), block = task.index % blocks, head = task.index / blocks % p.kv_heads, b = task.index / blocks / p.kv_heads;
  const int64_t granules = granules_of(p), first = block * task_granules(p), end = least(granules, first + task_granules(p));
  float* const scores = p.scores + (b * p.kv_heads + head) * granules;
  for (int64_t g = first; g < end; g++) scores[g] = -INFINITY;
  const int32_t length = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.lengths) + b));
  if (length < 0 || length > p.max_pages * p.page_size) return fail(*task.status, attention_hash_scores_port_lengths, b, length);
  if (first * p.granularity >= length) return;
  uint64_t* const hashes = reinterpret_cast<uint64_t*>(task.scratch + task.slot * slot_bytes(p));
  prepare(p, b, head, hashes);
  for (int64_t g = first; g < end && g * p.granularity < length; g++) {
    const int64_t token = g * p.granularity, entry = b * p.max_pages + token / p.page_size;
    const int32_t page = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.page_table) + entry));
    if (page < 0 || page >= p.pages) {
      fail(*task.status, attention_hash_scores_port_page_table, entry, page);
      continue;
    }
    const int64_t slot = (page * p.kv_heads + head) * p.page_size + token % p.page_size;
    scores[g] = float(-nearest(p, p.hash_pages + slot * (p.bits / 32), least(p.granularity, length - token), hashes));
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
