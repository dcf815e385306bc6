// A few queries: rows are read once, where they lie, and meet four queries at a time; sums run along the vector.
// Bound by memory.
// i8 rows meet the query in 16-bit integers: exact sums, and a quantisation error that the bound includes.
#pragma once
#include "../simd/row_dots.h"
#include "scan_rows.h"

namespace hotset {
namespace HOTSET_ISA {

constexpr int kStreamQueries = 8;

// dots [Q][kBlockRows] and, on the first pass, squares [kBlockRows].
template <class T, int Q, Pass pass>
static void stream_dots(const T* const* rows, int n, int64_t dim, const float* queries, int64_t query_pitch, float* dots, float* squares, const void* const* ahead) {
  constexpr int R = stream_rows(Q);
  alignas(64) float ones[kLanes];
  for (int j = 0; j < kLanes; j++) ones[j] = j < kLanes - dim % kLanes ? 0.0f : 1.0f;
  for (int r = 0; r < n; r += 4) {
    f32v sum[Q][4], square[4];
#pragma GCC unroll 2
    for (int half = 0; half < 4; half += R) {
      f32v part[Q][4];
      if (dim % kLanes) stream_sums<T, Q, R, pass, true>(rows + r + half, dim, queries, query_pitch, ones, part, square + half, ahead + r + half);
      else stream_sums<T, Q, R, pass, false>(rows + r + half, dim, queries, query_pitch, ones, part, square + half, ahead + r + half);
      for (int q = 0; q < Q; q++)
        for (int j = 0; j < R; j++) sum[q][half + j] = part[q][j];
    }
    if (sums_squares(pass)) reduce_add4(square[0], square[1], square[2], square[3], squares + r);
    for (int q = 0; q < Q; q++) reduce_add4(sum[q][0], sum[q][1], sum[q][2], sum[q][3], dots + q * kBlockRows + r);
  }
}

// The same for i8 rows and 16-bit queries: integer sums are exact, and leave as floats. `rest`: the rows do not fill
// whole vectors; a kind of its own, because the calls in it would have the sums kept in memory for all rows.
template <int Q, Pass pass, bool rest>
static inline void stream_sums_i8(const int8_t* const* rows, int64_t dim, const int16_t* queries, int64_t query_pitch, const int16_t* ones, f32v (*sum)[4], f32v* square) {
  constexpr bool kSquares = sums_squares(pass);
  const int64_t whole = dim / kLanes16 * kLanes16;
  i32v s[Q][4], t[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    t[j] = zero_i32();
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) s[q][j] = zero_i32();
  }
  for (int64_t i = 0; i < whole; i += kLanes16) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      if (pass == Pass::prefetch) __builtin_prefetch(rows[j] + i + kPrefetchBytes);
      const i16v x = widen_i8(rows[j] + i);
      if (kSquares) t[j] = madd_i16(x, x, t[j]);
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) s[q][j] = madd_i16(x, load_i16(queries + q * query_pitch + i), s[q][j]);
    }
  }
  if (rest) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      int8_t buffer[kLanes16];
      const i16v x = widen_i8(row_end(rows[j], dim, kLanes16, buffer));
      if (kSquares) t[j] = madd_i16(and_bits(x, load_i16(ones)), x, t[j]);
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) s[q][j] = madd_i16(x, load_i16(queries + q * query_pitch + whole), s[q][j]);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    if (kSquares) square[j] = to_f32(t[j]);
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) sum[q][j] = to_f32(s[q][j]);
  }
}

template <int Q, Pass pass>
static void stream_dots_i8(const int8_t* const* rows, int n, int64_t dim, const int16_t* queries, int64_t query_pitch, const QueryTerms* terms, float* dots, float* squares) {
  alignas(64) int16_t ones[kLanes16];
  for (int j = 0; j < kLanes16; j++) ones[j] = j < kLanes16 - dim % kLanes16 ? 0 : -1;
  for (int r = 0; r < n; r += 4) {
    f32v sum[Q][4], square[4];
    if (dim % kLanes16) stream_sums_i8<Q, pass, true>(rows + r, dim, queries, query_pitch, ones, sum, square);
    else stream_sums_i8<Q, pass, false>(rows + r, dim, queries, query_pitch, ones, sum, square);
    if (sums_squares(pass)) reduce_add4(square[0], square[1], square[2], square[3], squares + r);
    for (int q = 0; q < Q; q++) {
      const f32v scale = splat(terms[q].scale);
      reduce_add4(mul(sum[q][0], scale), mul(sum[q][1], scale), mul(sum[q][2], scale), mul(sum[q][3], scale), dots + q * kBlockRows + r);
    }
  }
}

// The largest 16-bit query value for which no 32-bit lane can overflow: a lane adds 2 products of at most 128 a step.
static inline int32_t largest_query_value(int64_t dim) {
  const int64_t steps = (dim + kLanes16 - 1) / kLanes16, largest = INT32_MAX / (256 * steps);
  return int32_t(largest < 32767 ? largest : 32767);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
