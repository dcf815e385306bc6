// Scores of search/scan: canonical ones, bit for bit those of the CPU, and how far an f32 score may be from them.
#pragma once
#include "../device.h"
#include "../numbers.h"
#include "../sorted_list.h"
#include "gen/params.h"

namespace hotset {

constexpr int kScanThreads = 256;
constexpr int kScanWarps = kScanThreads / 32;

// What the approximate score of a query is judged by.
struct QueryTerms {
  float square, length, inverse;
  float lost;    // length of what the parts of the query leave out (scan_panel.h), else 0
  float unscale; // a power of two: the parts are those of query / unscale
  int state;
};
enum QueryState : int {
  query_ordinary,
  query_wild,  // zero, infinite, or too large or small for f32 squares: every row is scored canonically
  query_dead,  // NaN: no row has a score
};

// The largest score, as larger is better, that a row may have given its f32 sums; `unit` bounds the relative error of a
// sum of products against the lengths. Infinity where f32 cannot tell.
struct ScoreBound {
  uint32_t metric;
  float unit;
  float sqrt_dim;

  __device__ __forceinline__ float operator()(const QueryTerms& t, float dot, float square, float scale) const {
    // Squares below 2^-149 were lost.
    const float size = fabsf(scale), length = (sqrtf(square) + sqrt_dim * 0x1p-74f) * size;
    float score, error;
    bool sure = t.state == query_ordinary;
    if (metric == search_scan_metric_cos) {
      sure = sure && square > 0x1p-100f && square < 0x1p100f && size > 0x1p-100f && size < 0x1p100f;
      score = dot * t.inverse * rsqrtf(square) * (scale < 0 ? -1.0f : 1.0f);
      error = 1.5f * unit + t.lost * t.inverse + 0x1p-20f;
    } else if (metric == search_scan_metric_ip) {
      score = dot * scale;
      error = length * (t.length * unit + t.lost) + fabsf(score) * 0x1p-20f;
    } else {
      const float squares = square * scale * scale + t.square;
      score = 2 * (dot * scale) - squares;
      error = 2 * length * (t.length * unit + t.lost) + (length * length + squares) * (unit + 0x1p-20f);
    }
    const float most = score + error * 1.1f + sqrt_dim * sqrt_dim * 0x1p-120f;
    // NaN and overflow fail these comparisons. A row that scores -Inf or NaN must not be turned away by its sums.
    sure = sure && fabsf(score) < 0x1p126f && error < 0x1p126f;
    return sure ? most : INFINITY;
  }
};

// Smaller is better, by score and then by row: as on the CPU. A NaN has none.
static inline __device__ unsigned long long key_of(uint32_t metric, float score, int64_t row) {
  if (score != score) return kNoKey;
  const unsigned ascending = ordered(score);
  return (unsigned long long)(metric == search_scan_metric_l2 ? ascending : ~ascending) << 32 | unsigned(row);
}
// The score as larger is better, and as it is.
static inline __device__ float merit_of_key(unsigned long long key, uint32_t metric) {
  const unsigned high = unsigned(key >> 32);
  return metric == search_scan_metric_l2 ? -from_ordered(high) : from_ordered(~high);
}
static inline __device__ float score_of_key(unsigned long long key, uint32_t metric) {
  const unsigned high = unsigned(key >> 32);
  return from_ordered(metric == search_scan_metric_l2 ? high : ~high);
}

static inline __device__ double shuffle_double(double value, int lanes) { return __shfl_xor_sync(kAllLanes, value, lanes); }

// ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)) of the running sums of 8 lanes.
static inline __device__ double sum_tree(double sum) {
  for (int lanes = 4; lanes > 0; lanes /= 2) sum = __dadd_rn(sum, shuffle_double(sum, lanes));
  return sum;
}

// Canonical sum of squares of a query: f64, running sums of stride 8 in 8 lanes, never fused. All lanes of the warp.
static inline __device__ double canonical_square(const float* query, int64_t dim) {
  double sum = 0;
  for (int64_t i = threadIdx.x % 8; i < dim; i += 8) sum = __dadd_rn(sum, __dmul_rn(double(query[i]), double(query[i])));
  return sum_tree(sum);
}

// The canonical score of a row, by 8 lanes; all lanes of the warp, four rows. NaN where `there` is false.
template <class T>
__device__ float canonical_score(const search_scan_params& p, const float* query, double query_square, int64_t row, bool there) {
  const T* const values = static_cast<const T*>(p.rows) + (there ? row * p.rows_pitch : 0);
  const double scale = sizeof(T) == 1 && there ? double(p.row_scale[row]) : 1;
  double sum = 0, square = 0;
  for (int64_t i = threadIdx.x % 8; there && i < p.dim; i += 8) {
    const double x = __dmul_rn(scale, double(widen_one(values + i))), q = double(query[i]);
    if (p.metric == search_scan_metric_l2) {
      const double apart = __dsub_rn(q, x);
      sum = __dadd_rn(sum, __dmul_rn(apart, apart));
    } else {
      sum = __dadd_rn(sum, __dmul_rn(x, q));
      if (p.metric == search_scan_metric_cos) square = __dadd_rn(square, __dmul_rn(x, x));
    }
  }
  sum = sum_tree(sum);
  square = sum_tree(square);
  if (!there) return NAN;
  if (p.metric == search_scan_metric_l2) return __double2float_rn(sum);
  if (p.metric == search_scan_metric_ip) return __double2float_rn(sum) + 0.0f;
  const double norms = __dmul_rn(query_square, square);
  return norms == 0 ? 0 : __double2float_rn(__ddiv_rn(sum, __dsqrt_rn(norms))) + 0.0f;
}

static inline __device__ bool passes(const search_scan_params& p, int64_t row) {
  return !p.filter || (p.filter[row >> 5] >> (row & 31) & 1);
}

// Length and state of a query, by all threads of a block; `shared` holds a double a warp.
static inline __device__ QueryTerms measure_query(const float* query, int64_t dim, double* shared) {
  double square = 0;
  for (int64_t i = threadIdx.x; i < dim; i += kScanThreads) square += double(query[i]) * double(query[i]);
  for (int lanes = 16; lanes > 0; lanes /= 2) square += shuffle_double(square, lanes);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = square;
  __syncthreads();
  square = 0;
  for (int warp = 0; warp < kScanWarps; warp++) square += shared[warp];
  QueryTerms t = {float(square), float(sqrt(square)), float(1 / sqrt(square)), 0, 1, query_ordinary};
  if (!(square > 0x1p-100 && square < 0x1p100)) t.state = square != square ? query_dead : query_wild;
  return t;
}

}  // namespace hotset
