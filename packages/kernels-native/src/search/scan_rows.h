// A block of rows on its way through the kernel: which rows, where they lie, and what turns their raw dot products
// into approximate scores with bounds.
#pragma once
#include "scan_reservoir.h"

namespace hotset {
namespace HOTSET_ISA {

constexpr int kBlockRows = kLanes * kPanelVectors;

struct RowBlock {
  int n;  // rows in use; the rest repeat the last one
  int32_t rows[kBlockRows];
  float squares[kBlockRows];  // |row|^2, of i8 rows before scaling; not of i8 rows under ip
  // score = dot * factor + term;  error = norm * query factor + error + query constant
  alignas(64) float factor[kBlockRows];
  alignas(64) float term[kBlockRows];
  alignas(64) float norm[kBlockRows];
  alignas(64) float error[kBlockRows];
};

// Roundings of a sum of dim products in any order, of the norm, and of what follows, with room to spare.
static inline float error_unit(int64_t dim) { return float(dim + 16) * 0x1.05p-24f; }

// Collects up to kBlockRows rows from `next` on that pass the filter; returns where to go on, or `end`.
static inline int64_t next_rows(const search_scan_params& p, int64_t next, int64_t end, RowBlock& block) {
  int n = 0;
  if (!p.filter) {
    for (; n < kBlockRows && next < end; next++) block.rows[n++] = int32_t(next);
  } else {
    while (n < kBlockRows && next < end) {
      const uint32_t word = p.filter[next >> 5] >> (next & 31);
      if (word == 0) {
        next = (next | 31) + 1;
        continue;
      }
      if (word & 1) block.rows[n++] = int32_t(next);
      next++;
    }
    if (next > end) next = end;
  }
  block.n = n;
  for (int i = n; i < kBlockRows && n > 0; i++) block.rows[i] = block.rows[n - 1];
  return next;
}

// Rows in the order that memory likes best. Four rows meet the query side by side, and an AMD prefetcher does not follow
// four streams 512 bytes apart: 7.0 against 15.6 GB/s with rows of 512 bytes 32 apart and 17.8 with them 256 apart (one
// thread of a Zen 3). So each block takes a quarter of its rows from each quarter of the range. On an Intel Xeon too that
// is better than rows in their order with our prefetches: 20.7 against 14.8 GB/s (784 f32, two threads, medians of three).
class RowOrder {
 public:
  RowOrder(const search_scan_params& p, int64_t first, int64_t end) : p_(p), end_(end) {
    quarter_ = p.filter ? 0 : (end - first) / (4 * kShare) * kShare;
    first_ = first;
    next_ = first + 4 * quarter_;
  }

  // Fills a block; n is 0 when there are no more rows.
  void next(RowBlock& block) {
    if (taken_ == quarter_) {
      next_ = next_rows(p_, next_, end_, block);
      return;
    }
    for (int i = 0; i < kBlockRows; i++) block.rows[i] = int32_t(first_ + i % 4 * quarter_ + taken_ + i / 4);
    block.n = kBlockRows;
    taken_ += kShare;
  }

 private:
  static constexpr int kShare = kBlockRows / 4;
  const search_scan_params& p_;
  const int64_t end_;
  int64_t first_, quarter_, next_, taken_ = 0;
};

// Rows that a filter picks are met in their order, where Intel's prefetcher is helped by ours (simd/row_dots.h).
static inline bool fetches_rows(const search_scan_params& p) { return p.filter && prefetch_helps; }

// Fills factor, term, norm and error from squares. `scaled`: the dot products are of i8 rows before scaling.
static inline void row_terms(const search_scan_params& p, bool scaled, RowBlock& block) {
  const float unit = error_unit(p.dim);
  // Squares below 2^-126 are lost: |x|^2 is at most this much more than what was summed.
  const f32v lost = splat(float(p.dim) * 0x1p-125f), grow = splat(1 + 2 * unit), nan = splat(NAN);
  for (int i = 0; i < kBlockRows; i += kLanes) {
    f32v square = load(block.squares + i), scale = splat(1);
    if (p.row_scale) {
      alignas(64) float scales[kLanes];
      for (int j = 0; j < kLanes; j++) scales[j] = p.row_scale[block.rows[i + j]];
      scale = load(scales);
    }
    if (p.metric == search_scan_metric_cos) {
      // Outside this range a norm in f32 says nothing: NaN sends the row to the canonical score.
      f32v inverse = select_inside(square, 0x1p-100f, 0x1p100f, div(splat(1), sqrt(square)), nan);
      if (p.row_scale) {
        const f32v positive = select_inside(scale, 0, INFINITY, splat(1), nan), negative = select_inside(scale, -INFINITY, 0, splat(-1), positive);
        inverse = mul(inverse, scaled ? negative : splat(1));
        // Panels hold scaled values, whose squares were range-checked above; a scale of 0 or NaN is NaN there too.
      }
      store(block.factor + i, inverse);
      store(block.term + i, zero());
      store(block.norm + i, zero());
      store(block.error + i, splat(2 * unit));
      continue;
    }
    if (scaled && p.metric == search_scan_metric_ip) {
      // A bound of the norm that costs nothing and is loose by a factor of 2: enough beside 16-bit queries.
      store(block.factor + i, scale);
      store(block.term + i, zero());
      store(block.norm + i, mul(larger(scale, sub(zero(), scale)), splat(128.001f * __builtin_sqrtf(float(p.dim)))));
      store(block.error + i, zero());
      continue;
    }
    if (scaled) square = mul(mul(square, scale), scale);
    const f32v factor = scaled ? scale : splat(1), norm = sqrt(madd(square, grow, lost));
    store(block.factor + i, factor);
    store(block.norm + i, norm);
    if (p.metric == search_scan_metric_ip) {
      store(block.term + i, zero());
      store(block.error + i, zero());
    } else {
      store(block.term + i, mul(square, splat(-0.5f)));
      store(block.error + i, mul(square, splat(unit)));
    }
  }
}

// Turns `dots [kBlockRows]` of one query into bounds, and keeps the rows that may be among its best.
static inline void keep_rows(const RowBlock& block, const float* dots, int64_t query, const QueryTerms& terms, Reservoir& reservoir, const Rescorer& rescorer, uint64_t* work) {
  const f32v query_factor = splat(terms.error_factor), query_constant = splat(terms.error_constant);
  for (int i = 0; i < block.n; i += kLanes) {
    const f32v score = madd(load(dots + i), load(block.factor + i), load(block.term + i));
    const f32v error = add(madd(load(block.norm + i), query_factor, load(block.error + i)), query_constant);
    uint32_t passing = not_less(add(score, error), splat(reservoir.threshold));
    if (block.n - i < kLanes) passing &= (1u << (block.n - i)) - 1;
    if (passing == 0) continue;
    alignas(64) float scores[kLanes], errors[kLanes];
    store(scores, score);
    store(errors, error);
    for (int j = 0; passing; j++, passing >>= 1)
      if (passing & 1) reservoir.push(block.rows[i + j], scores[j], errors[j], query, terms, rescorer, work);
  }
}

template <class T>
static inline void row_pointers(const search_scan_params& p, const RowBlock& block, const T** out) {
  const T* rows = static_cast<const T*>(p.rows);
  for (int i = 0; i < kBlockRows; i++) out[i] = rows + block.rows[i] * p.rows_pitch;
}

}  // namespace HOTSET_ISA
}  // namespace hotset
