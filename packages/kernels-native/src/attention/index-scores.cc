// attention/index-scores: score_g = max over the tokens t of g of sum_j w_j relu(q_j . k_t).
//
// Queries lie in the scratch with zeros up to whole vectors, and heads up to whole fours. Four keys at a time are widened to
// floats, once for all heads (2 KiB at 128 components, which stay in the nearest cache), and meet four heads: 16 sums where there
// are 32 registers, 8 where there are 16. Heads are added in their order, token by token. A task is 256 tokens. Bound by the
// products: 64 heads of 128 components are 16 k multiply-adds a token of 132 bytes.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/row_dots.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskTokens = 256;
constexpr int kHeads = 4;

int64_t granules_of(const attention_index_scores_params& p) { return p.max_pages * p.page_size / p.granularity; }
int64_t task_granules(const attention_index_scores_params& p) { return most(1, kTaskTokens / p.granularity); }
int64_t blocks_of(const attention_index_scores_params& p) { return (granules_of(p) + task_granules(p) - 1) / task_granules(p); }
int64_t pitch_of(const attention_index_scores_params& p) { return round_up(p.index_dim, 16); }
int64_t heads_of(const attention_index_scores_params& p) { return round_up(p.heads, kHeads); }
// Queries, then four keys.
int64_t slot_bytes(const attention_index_scores_params& p) { return round_up((heads_of(p) + 4) * pitch_of(p) * int64_t(sizeof(float)), 64); }

// Whether all queries and weights of a sequence are finite; the queries in whole vectors and fours.
bool prepare(const attention_index_scores_params& p, int64_t b, float* queries) {
  const int64_t pitch = pitch_of(p);
  memset(queries, 0, size_t(slot_bytes(p)));
  bool finite = true;
  for (int64_t j = 0; j < p.heads; j++) {
    const float* const query = p.queries + (b * p.heads + j) * p.index_dim;
    memcpy(queries + j * pitch, query, size_t(p.index_dim) * sizeof(float));
    for (int64_t i = 0; i < p.index_dim; i++) finite = finite && is_finite(query[i]);
    finite = finite && is_finite(p.weights[b * p.heads + j]);
  }
  return finite;
}

// Four keys as floats; whole vectors are loaded where they fill them, the rest one by one.
void widen(const int8_t* key, int64_t dim, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) store(out + i, load(key + i));
  for (; i < dim; i++) out[i] = float(key[i]);
}

// The scores of up to four tokens from a slot on.
void score_tokens(const attention_index_scores_params& p, int64_t b, int64_t slot, int64_t tokens, const float* queries, float* keys, float* scores) {
  constexpr int R = stream_rows(kHeads);
  const int64_t pitch = pitch_of(p);
  const float* rows[4];
  float scales[4];
  for (int64_t t = 0; t < 4; t++) {
    // The last one stands for those that there are not.
    const int64_t at = slot + least(t, tokens - 1);
    rows[t] = keys + t * pitch;
    scales[t] = p.index_scale[at];
    scores[t] = is_finite(scales[t]) ? 0 : NAN;
    widen(p.index_keys + at * p.index_dim, p.index_dim, keys + t * pitch);
  }
  for (int64_t j = 0; j < p.heads; j += kHeads) {
    f32v sum[kHeads][4], square[4];
    for (int half = 0; half < 4; half += R) {
      f32v part[kHeads][4];
      stream_sums<float, kHeads, R, Pass::again, false>(rows + half, pitch, queries + j * pitch, pitch, nullptr, part, square);
      for (int h = 0; h < kHeads; h++)
        for (int r = 0; r < R; r++) sum[h][half + r] = part[h][r];
    }
    for (int64_t h = 0; h < least(kHeads, p.heads - j); h++) {
      float dots[4];
      reduce_add4(sum[h][0], sum[h][1], sum[h][2], sum[h][3], dots);
      const float weight = p.weights[b * p.heads + j + h];
      for (int t = 0; t < 4; t++) {
        const float x = dots[t] * scales[t];
        scores[t] += weight * (x < 0 ? 0 : x);
      }
    }
  }
}

}  // namespace

void attention_index_scores_plan(const attention_index_scores_params& p, int slots, KernelPlan& plan) {
  plan.name = "fours";
  plan.scratch_bytes = slots * slot_bytes(p);
  plan.phases = p.batch > 0;
  plan.tasks[0] = p.batch * blocks_of(p);
}

void attention_index_scores_task(const attention_index_scores_params& p, const Task& task) {
  const int64_t blocks = blocks_of(p), block = task.index % blocks, b = task.index / blocks;
  const int64_t granules = granules_of(p), first = block * task_granules(p), end = least(granules, first + task_granules(p));
  float* const scores = p.scores + b * granules;
  for (int64_t g = first; g < end; g++) scores[g] = -INFINITY;
  const int32_t length = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.lengths) + b));
  if (length < 0 || length > p.max_pages * p.page_size) return fail(*task.status, attention_index_scores_port_lengths, b, length);
  if (first * p.granularity >= length) return;
  float* const queries = reinterpret_cast<float*>(task.scratch + task.slot * slot_bytes(p));
  float* const keys = queries + heads_of(p) * pitch_of(p);
  const bool finite = prepare(p, b, queries);
  int64_t entry = -1;
  int32_t page = -1;
  for (int64_t t = first * p.granularity; t < least(length, end * p.granularity);) {
    // Fours end with their page.
    const int64_t here = t / p.page_size, tokens = least(least(4, p.page_size - t % p.page_size), least(length, end * p.granularity) - t);
    if (entry != b * p.max_pages + here) {
      entry = b * p.max_pages + here;
      page = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.page_table) + entry));
      if (page < 0 || page >= p.pages) fail(*task.status, attention_index_scores_port_page_table, entry, page);
    }
    if (page >= 0 && page < p.pages) {
      float own[4];
      score_tokens(p, b, page * p.page_size + t % p.page_size, tokens, queries, keys, own);
      for (int64_t i = 0; i < tokens; i++) {
        float& best = scores[(t + i) / p.granularity];
        const float one = finite && is_finite(own[i]) ? own[i] : NAN;
        if (one > best || is_nan(one)) best = one;
      }
    }
    t += tokens;
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
