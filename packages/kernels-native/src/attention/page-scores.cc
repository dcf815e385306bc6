// attention/page-scores: sum_i q_i mean_i + spread |q_i| deviation_i, or sum_i min(q_i, 0) least_i + max(q_i, 0) largest_i.
//
// Either is one dot product of a granule's statistics with a vector that the query gives: [q, spread |q|] or [min(q, 0),
// max(q, 0)]. Heads pooled by their sum share the sum of their vectors, so a group costs one product; pooled by the largest,
// each has its own, while four rows are in the nearest cache. A task is 64 granules (64 KiB at 128 components, 4 us), whose
// rows are asked for 8 ahead: pages lie anywhere. Bound by bandwidth: 2 headDim floats a granule and KV head.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/row_dots.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskGranules = 64;
constexpr int kScoreRowsAhead = 8;

int64_t granules_of(const attention_page_scores_params& p) { return p.max_pages * p.page_size / p.granularity; }
int64_t blocks_of(const attention_page_scores_params& p) { return (granules_of(p) + kTaskGranules - 1) / kTaskGranules; }
int64_t group_of(const attention_page_scores_params& p) { return p.query_heads / p.kv_heads; }
bool largest_of(const attention_page_scores_params& p) { return p.pool == attention_page_scores_pool_max; }
// A vector, and what it becomes for rows that do not fill whole vectors.
int64_t pitch_of(const attention_page_scores_params& p) { return stream_length(2 * p.head_dim, kLanes); }
int64_t slot_bytes(const attention_page_scores_params& p) {
  return round_up(((largest_of(p) ? group_of(p) : 1) * pitch_of(p) + 2 * p.head_dim) * int64_t(sizeof(float)), 64);
}

// The vectors of a KV head's queries, one for all or one each.
void prepare(const attention_page_scores_params& p, int64_t b, int64_t head, float* vectors) {
  const int64_t group = group_of(p), dim = p.head_dim, count = largest_of(p) ? group : 1;
  const bool minmax = p.statistics == attention_page_scores_statistics_minmax;
  float* const both = vectors + count * pitch_of(p);
  for (int64_t h = 0; h < group; h++) {
    const float* const query = p.queries + (b * p.query_heads + head * group + h) * dim;
    if (h == 0 || count > 1) memset(both, 0, size_t(2 * dim) * sizeof(float));
    for (int64_t i = 0; i < dim; i++) {
      const float q = query[i];
      // A NaN is in both.
      both[i] += minmax ? (q > 0 ? 0 : q) : q;
      both[dim + i] += minmax ? (q < 0 ? 0 : q) : p.spread * magnitude(q);
    }
    if (h + 1 == group || count > 1) stream_query(both, 2 * dim, kLanes, vectors + (count > 1 ? h : 0) * pitch_of(p));
  }
}

template <bool rest>
void score_rows(const attention_page_scores_params& p, const float* const* rows, int64_t count, const float* vectors, float* scores) {
  const int64_t heads = largest_of(p) ? group_of(p) : 1;
  for (int64_t r = 0; r < count; r += 4) {
    alignas(64) float pooled[4], sums[4];
    for (int64_t h = 0; h < heads; h++) {
      f32v sum[1][4], square[4];
      stream_sums<float, 1, 4, Pass::ahead, rest>(rows + r, 2 * p.head_dim, vectors + h * pitch_of(p), 0, nullptr, sum, square, reinterpret_cast<const void* const*>(rows + r + kScoreRowsAhead));
      reduce_add4(sum[0][0], sum[0][1], sum[0][2], sum[0][3], sums);
      for (int j = 0; j < 4; j++) {
        const float score = is_finite(sums[j]) ? sums[j] : NAN;
        if (h == 0 || score > pooled[j] || is_nan(score)) pooled[j] = score;
      }
    }
    for (int64_t j = 0; j < 4 && r + j < count; j++) scores[r + j] = pooled[j];
  }
}

}  // namespace

void attention_page_scores_plan(const attention_page_scores_params& p, int slots, KernelPlan& plan) {
  plan.name = "rows";
  plan.scratch_bytes = slots * slot_bytes(p);
  plan.phases = p.batch > 0;
  plan.tasks[0] = p.batch * p.kv_heads * blocks_of(p);
}

void attention_page_scores_task(const attention_page_scores_params& p, const Task& task) {
  const int64_t blocks = blocks_of(p), block = task.index % blocks, head = task.index / blocks % p.kv_heads, b = task.index / blocks / p.kv_heads;
  const int64_t granules = granules_of(p), per_page = p.page_size / p.granularity;
  const int64_t first = block * kTaskGranules, end = least(granules, first + kTaskGranules);
  float* const scores = p.scores + (b * p.kv_heads + head) * granules + first;
  for (int64_t g = first; g < end; g++) scores[g - first] = -INFINITY;
  const int32_t length = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.lengths) + b));
  if (length < 0 || length > p.max_pages * p.page_size) return fail(*task.status, attention_page_scores_port_lengths, b, length);

  const float* rows[kTaskGranules + kScoreRowsAhead + 4];
  float dots[kTaskGranules];
  uint8_t places[kTaskGranules];
  int count = 0;
  for (int64_t g = first; g < end && g * p.granularity < length; g++) {
    const int64_t entry = b * p.max_pages + g / per_page;
    const int32_t page = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.page_table) + entry));
    if (page < 0 || page >= p.pages) {
      fail(*task.status, attention_page_scores_port_page_table, entry, page);
      continue;
    }
    places[count] = uint8_t(g - first);
    rows[count++] = p.page_stats + ((page * p.kv_heads + head) * per_page + g % per_page) * 2 * p.head_dim;
  }
  if (count == 0) return;
  // Whole groups of four are computed, and rows asked for, beyond the last one.
  for (int i = 0; i < kScoreRowsAhead + 4; i++) rows[count + i] = rows[count - 1];
  float* const vectors = reinterpret_cast<float*>(task.scratch + task.slot * slot_bytes(p));
  prepare(p, b, head, vectors);
  if (2 * p.head_dim % kLanes) score_rows<true>(p, rows, count, vectors, dots);
  else score_rows<false>(p, rows, count, vectors, dots);
  for (int i = 0; i < count; i++) scores[places[i]] = dots[i];
}

}  // namespace HOTSET_ISA
}  // namespace hotset
