// Canonical scores: what a result's score is, bit for bit, on every instruction set and backend.
// f64 sums in a fixed order (8 running sums of stride 8, then a tree), rounded once to f32; -0 becomes 0.
// Products and sums are never fused: the build sets -ffp-contract=off.
#pragma once
#include "../gen/params.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

constexpr uint64_t kNoKey = ~uint64_t(0);

static inline double sum_tree(const double (&s)[8]) { return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])); }

// sum (scale * x) * y. A scale of 1 changes nothing; the product of an f32 and an i8 is exact in f64.
static inline double canonical_dot(const float* x, double scale, const float* y, int64_t dim) {
  double s[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8)
    for (int j = 0; j < 8; j++) s[j] += (scale * double(x[i + j])) * double(y[i + j]);
  for (int j = 0; i + j < dim; j++) s[j] += (scale * double(x[i + j])) * double(y[i + j]);
  return sum_tree(s);
}

static inline double canonical_square(const float* x, double scale, int64_t dim) {
  double s[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8)
    for (int j = 0; j < 8; j++) {
      const double value = scale * double(x[i + j]);
      s[j] += value * value;
    }
  for (int j = 0; i + j < dim; j++) {
    const double value = scale * double(x[i + j]);
    s[j] += value * value;
  }
  return sum_tree(s);
}

static inline double canonical_distance(const float* x, double scale, const float* y, int64_t dim) {
  double s[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8)
    for (int j = 0; j < 8; j++) {
      const double difference = double(y[i + j]) - scale * double(x[i + j]);
      s[j] += difference * difference;
    }
  for (int j = 0; i + j < dim; j++) {
    const double difference = double(y[i + j]) - scale * double(x[i + j]);
    s[j] += difference * difference;
  }
  return sum_tree(s);
}

// The score of a widened row; `query_square` is canonical_square of the query.
static inline float canonical_score(uint32_t metric, const float* row, double scale, const float* query, double query_square, int64_t dim) {
  if (metric == search_scan_metric_l2) return float(canonical_distance(row, scale, query, dim));
  const double product = canonical_dot(row, scale, query, dim);
  if (metric == search_scan_metric_ip) return float(product) + 0.0f;
  const double norms = query_square * canonical_square(row, scale, dim);
  if (norms == 0) return 0;
  return float(product / __builtin_sqrt(norms)) + 0.0f;
}

// Results in one integer order: better score first, then lower row. Smaller key is better.
static inline uint64_t key_of(uint32_t metric, float score, int32_t row) {
  uint32_t bits;
  memcpy(&bits, &score, 4);
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t(metric == search_scan_metric_l2 ? ascending : ~ascending) << 32 | uint32_t(row);
}

static inline float score_of_key(uint32_t metric, uint64_t key) {
  const uint32_t high = uint32_t(key >> 32), ascending = metric == search_scan_metric_l2 ? high : ~high;
  const uint32_t bits = ascending & 0x80000000u ? ascending & 0x7fffffffu : ~ascending;
  float score;
  memcpy(&score, &bits, 4);
  return score;
}

// Reads one row as floats: in place for f32, else into `buffer [dim]`.
template <class T>
static inline const float* widen_row(const T* row, int64_t dim, float* buffer) {
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) store(buffer + i, load(row + i));
  if (i < dim) {
    T rest[kLanes] = {};
    float wide[kLanes];
    memcpy(rest, row + i, size_t(dim - i) * sizeof(T));
    store(wide, load(rest));
    memcpy(buffer + i, wide, size_t(dim - i) * 4);
  }
  return buffer;
}
static inline const float* widen_row(const float* row, int64_t, float*) { return row; }

}  // namespace HOTSET_ISA
}  // namespace hotset
