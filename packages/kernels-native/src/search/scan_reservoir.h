// The rows that may still be among a query's k best, with certified bounds.
//
// A scan gives each row an approximate score s with |s - true| <= e, in a space where larger is better. A row is
// kept while s + e >= threshold, where at least k rows are known to score at least the threshold. When the list
// is full, the threshold rises to the k-th best s - e and rows below it go; where that frees too little (ties,
// NaN, Inf), the rows are scored canonically and only the k best remain. So the k best by canonical score are
// always in the list, however the rows were ordered or split.
#pragma once
#include "scan_canonical.h"

namespace hotset {
namespace HOTSET_ISA {

// The k smallest keys of `keys [n]` first, in any order (quickselect, median of three).
static inline void select_smallest(uint64_t* keys, int64_t n, int64_t k) {
  int64_t low = 0, high = n - 1;
  while (low < high) {
    const uint64_t a = keys[low], b = keys[low + (high - low) / 2], c = keys[high];
    const uint64_t pivot = a < b ? (b < c ? b : (a < c ? c : a)) : (a < c ? a : (b < c ? c : b));
    int64_t i = low, j = high;
    while (i <= j) {
      while (keys[i] < pivot) i++;
      while (keys[j] > pivot) j--;
      if (i <= j) {
        const uint64_t swap = keys[i];
        keys[i++] = keys[j];
        keys[j--] = swap;
      }
    }
    if (k - 1 <= j) high = j;
    else if (k - 1 >= i) low = i;
    else return;
  }
}

// Ascending (heapsort: no recursion, no worst case).
static inline void sort_keys(uint64_t* keys, int64_t n) {
  for (int64_t end = n, root = n / 2; end > 1;) {
    uint64_t key;
    if (root > 0) {
      key = keys[--root];
    } else {
      key = keys[--end];
      keys[end] = keys[0];
    }
    int64_t at = root;
    for (int64_t child; (child = 2 * at + 1) < end; at = child) {
      if (child + 1 < end && keys[child + 1] > keys[child]) child++;
      if (keys[child] <= key) break;
      keys[at] = keys[child];
    }
    keys[at] = key;
  }
}

// How one query is scored, exactly and approximately.
struct QueryTerms {
  double square;       // canonical |q|^2
  float error_factor;  // e = |row| * error_factor + row term + error_constant
  float error_constant;
  float scale;  // of the quantised query
  int32_t dead;  // it holds a NaN: nothing matches
};

struct Rescorer {
  const search_scan_params* params;
  float* buffer;  // [dim]

  float score(int32_t row, int64_t query, double query_square) const {
    const search_scan_params& p = *params;
    const float* q = p.queries + query * p.dim;
    const int64_t at = row * p.rows_pitch;
    double scale = 1;
    const float* x;
    switch (p.rows_dtype) {
      case dtype_f32: x = static_cast<const float*>(p.rows) + at; break;
      case dtype_f16: x = widen_row(reinterpret_cast<const f16*>(p.rows) + at, p.dim, buffer); break;
      case dtype_bf16: x = widen_row(reinterpret_cast<const bf16*>(p.rows) + at, p.dim, buffer); break;
      default:
        x = widen_row(static_cast<const int8_t*>(p.rows) + at, p.dim, buffer);
        scale = double(p.row_scale[row]);
    }
    return canonical_score(p.metric, x, scale, q, query_square, p.dim);
  }
};

struct Reservoir {
  float threshold;
  int32_t pending;  // rows with bounds only
  int32_t exact;    // rows with canonical keys, at most k
  int32_t padding_;

  static int64_t capacity(int64_t k) { return 2 * k + 64; }
  static int64_t bytes(int64_t k) { return (16 + capacity(k) * 12 + k * 8 + 15) & ~int64_t(15); }

  uint64_t* keys() { return reinterpret_cast<uint64_t*>(this + 1); }  // [k]
  float* scores(int64_t k) { return reinterpret_cast<float*>(keys() + k); }
  float* errors(int64_t k) { return scores(k) + capacity(k); }
  int32_t* rows(int64_t k) { return reinterpret_cast<int32_t*>(errors(k) + capacity(k)); }

  void clear() {
    threshold = -INFINITY;
    pending = exact = 0;
  }

  // `work [2 * capacity]` is used when the list is full.
  void push(int32_t row, float s, float e, int64_t query, const QueryTerms& terms, const Rescorer& rescorer, uint64_t* work) {
    const int64_t k = rescorer.params->k;
    const bool certain = is_finite(s) && is_finite(e);
    scores(k)[pending] = certain ? s : 0;
    errors(k)[pending] = certain ? e : INFINITY;
    rows(k)[pending] = row;
    if (++pending < capacity(k)) return;
    raise(k, work);
    if (pending > capacity(k) - k / 2 - 32) resolve(query, terms, rescorer, work);
  }

  // Raises the threshold to the k-th best lower bound and drops what lies below it.
  void raise(int64_t k, uint64_t* work) {
    if (pending >= k) {
      for (int32_t i = 0; i < pending; i++) work[i] = key_of(search_scan_metric_ip, scores(k)[i] - errors(k)[i], 0);
      select_smallest(work, pending, k);
      uint64_t worst = 0;
      for (int64_t i = 0; i < k; i++) worst = work[i] > worst ? work[i] : worst;
      const float bound = score_of_key(search_scan_metric_ip, worst);
      if (bound > threshold) threshold = bound;
    }
    int32_t kept = 0;
    for (int32_t i = 0; i < pending; i++) {
      if (scores(k)[i] + errors(k)[i] < threshold) continue;
      scores(k)[kept] = scores(k)[i];
      errors(k)[kept] = errors(k)[i];
      rows(k)[kept++] = rows(k)[i];
    }
    pending = kept;
  }

  // Scores the pending rows canonically; the k best of them and of the earlier ones remain.
  void resolve(int64_t query, const QueryTerms& terms, const Rescorer& rescorer, uint64_t* work) {
    const int64_t k = rescorer.params->k;
    int64_t n = exact;
    memcpy(work, keys(), size_t(n) * 8);
    for (int32_t i = 0; i < pending; i++) {
      const float score = rescorer.score(rows(k)[i], query, terms.square);
      if (!is_nan(score)) work[n++] = key_of(rescorer.params->metric, score, rows(k)[i]);
    }
    pending = 0;
    exact = int32_t(n < k ? n : k);
    select_smallest(work, n, exact);
    memcpy(keys(), work, size_t(exact) * 8);
    if (exact < k) return;
    uint64_t worst = 0;
    for (int64_t i = 0; i < k; i++) worst = work[i] > worst ? work[i] : worst;
    const float bound = threshold_of(rescorer.params->metric, score_of_key(rescorer.params->metric, worst), terms.square);
    if (bound > threshold) threshold = bound;
  }

  // A canonical score in the space of the approximate ones; under l2 that is (|q|^2 - distance) / 2, rounded down.
  static float threshold_of(uint32_t metric, float score, double query_square) {
    if (metric != search_scan_metric_l2) return score;
    const double value = (query_square - double(score)) / 2;
    return float(value - (__builtin_fabs(value) + query_square) * 0x1p-22);
  }
};

}  // namespace HOTSET_ISA
}  // namespace hotset
