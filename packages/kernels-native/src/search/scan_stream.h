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
static inline void stream_sums_i8(const int8_t* const* rows, int64_t dim, const int16_t* queries, int64_t query_pitch, const int16_t* ones, i32v (*s)[4], i32v* t) {
  constexpr bool kSquares = sums_squares(pass);
  const int64_t whole = dim / kLanes16 * kLanes16;
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    t[j] = zero_i32();
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) s[q][j] = zero_i32();
  }
  for (int64_t i = 0; i < whole; i += kLanes16) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      if (fetches(pass)) __builtin_prefetch(rows[j] + i + kPrefetchBytes);
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
}

template <int Q, Pass pass>
static void stream_dots_i8(const int8_t* const* rows, int n, int64_t dim, const int16_t* queries, int64_t query_pitch, const QueryTerms* terms, float* dots, float* squares) {
  alignas(64) int16_t ones[kLanes16];
  for (int j = 0; j < kLanes16; j++) ones[j] = j < kLanes16 - dim % kLanes16 ? 0 : -1;
  for (int r = 0; r < n; r += 4) {
    i32v sum[Q][4], square[4];
    if (dim % kLanes16) stream_sums_i8<Q, pass, true>(rows + r, dim, queries, query_pitch, ones, sum, square);
    else stream_sums_i8<Q, pass, false>(rows + r, dim, queries, query_pitch, ones, sum, square);
    // At most 2^30: 65536 squares of 128.
    if (sums_squares(pass)) reduce_add4(square[0], square[1], square[2], square[3], 1, squares + r);
    for (int q = 0; q < Q; q++) reduce_add4(sum[q][0], sum[q][1], sum[q][2], sum[q][3], terms[q].scale, dots + q * kBlockRows + r);
  }
}

// What a query is divided by for 16-bit integers whose dot product with any i8 row fits 32 bits, given its largest
// magnitude and the sum of them; each may be rounded up by half.
static inline float query_scale(float largest, double sum, int64_t dim) {
  const double of_sum = sum / (double(INT32_MAX) / 128 - double(dim)), of_largest = double(largest) / 32767;
  const float scale = float(of_sum > of_largest ? of_sum : of_largest) * 0x1.00001p0f;
  return scale < 0x1p-126f ? 0 : scale;  // a denormal may be half of what it should be
}

}  // namespace HOTSET_ISA
}  // namespace hotset
