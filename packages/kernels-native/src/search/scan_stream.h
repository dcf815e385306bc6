// A few queries: rows are read once, where they lie, and meet four queries at a time; sums run along the vector.
// Bound by memory.
// i8 rows meet the query in 16-bit integers: exact sums, and a quantisation error that the bound includes.
#pragma once
#include "scan_rows.h"

namespace hotset {
namespace HOTSET_ISA {

constexpr int kStreamQueries = 8;

// A query for streaming: whole vectors, then one vector that ends with the query's last components and is zero in
// those that the vector before has covered. Rows are read to match: their last kLanes elements.
static inline int64_t stream_length(int64_t dim, int lanes) { return dim / lanes * lanes + lanes; }

template <class V>
static inline void stream_query(const V* query, int64_t dim, int lanes, V* out) {
  const int64_t whole = dim / lanes * lanes, rest = dim - whole;
  memcpy(out, query, size_t(whole) * sizeof(V));
  for (int j = 0; j < lanes; j++) out[whole + j] = j < lanes - rest ? V(0) : query[dim - lanes + j];
}

// The last `lanes` elements of a row; a shorter row is put at the end of a vector of zeros.
template <class T>
static inline const T* row_end(const T* row, int64_t dim, int lanes, T* buffer) {
  if (dim >= lanes) return row + dim - lanes;
  memset(buffer, 0, size_t(lanes) * sizeof(T));
  memcpy(buffer + lanes - dim, row, size_t(dim) * sizeof(T));
  return buffer;
}

// What a pass over a block of rows does besides the dot products.
enum class Pass {
  first,     // the rows come from memory: sum their squares as well
  prefetch,  // the same, asking for the lines kPrefetchBytes ahead
  again,     // the rows are in the cache
};

// Intel's own prefetcher leaves bandwidth unused on rows of a few lines: 9 against 18 GB/s on 128-byte rows, 14.6
// against 15.9 on 512-byte ones (one thread of a Xeon, 1M rows). AMD's does not, and is slowed down by ours.
constexpr int kPrefetchBytes = 2048;

// Rows that are summed side by side: as many sums as fit the registers beside a row and a query vector each.
constexpr int stream_rows(int queries) { return (queries + 1) * 4 + 4 <= kRegisters ? 4 : 2; }

// The sums of R rows with Q queries, each still a vector.
template <class T, int Q, int R, Pass pass>
static inline void stream_sums(const T* const* rows, int64_t dim, const float* queries, int64_t query_pitch, const float* ones, f32v (*sum)[4], f32v* square) {
  constexpr bool kSquares = pass != Pass::again;
  const int64_t whole = dim / kLanes * kLanes;
  f32v s[Q][R], t[R];
  for (int j = 0; j < R; j++) {
    t[j] = zero();
    for (int q = 0; q < Q; q++) s[q][j] = zero();
  }
  for (int64_t i = 0; i < whole; i += kLanes) {
    f32v x[R];
#pragma GCC unroll 4
    for (int j = 0; j < R; j++) {
      if (pass == Pass::prefetch) __builtin_prefetch(reinterpret_cast<const char*>(rows[j] + i) + kPrefetchBytes);
      x[j] = load(rows[j] + i);
      if (kSquares) t[j] = madd(x[j], x[j], t[j]);
    }
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) {
      const f32v y = load(queries + q * query_pitch + i);
#pragma GCC unroll 4
      for (int j = 0; j < R; j++) s[q][j] = madd(x[j], y, s[q][j]);
    }
  }
  if (whole < dim) {
    for (int j = 0; j < R; j++) {
      T buffer[kLanes];
      const f32v x = load(row_end(rows[j], dim, kLanes, buffer));
      if (kSquares) t[j] = madd(mul(x, load(ones)), x, t[j]);
      for (int q = 0; q < Q; q++) s[q][j] = madd(x, load(queries + q * query_pitch + whole), s[q][j]);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < R; j++) {
    square[j] = t[j];
    for (int q = 0; q < Q; q++) sum[q][j] = s[q][j];
  }
}

// dots [Q][kBlockRows] and, on the first pass, squares [kBlockRows].
template <class T, int Q, Pass pass>
static void stream_dots(const T* const* rows, int n, int64_t dim, const float* queries, int64_t query_pitch, float* dots, float* squares) {
  constexpr int R = stream_rows(Q);
  alignas(64) float ones[kLanes];
  for (int j = 0; j < kLanes; j++) ones[j] = j < kLanes - dim % kLanes ? 0.0f : 1.0f;
  for (int r = 0; r < n; r += 4) {
    f32v sum[Q][4], square[4];
#pragma GCC unroll 2
    for (int half = 0; half < 4; half += R) {
      f32v part[Q][4];
      stream_sums<T, Q, R, pass>(rows + r + half, dim, queries, query_pitch, ones, part, square + half);
      for (int q = 0; q < Q; q++)
        for (int j = 0; j < R; j++) sum[q][half + j] = part[q][j];
    }
    if (pass != Pass::again) reduce_add4(square[0], square[1], square[2], square[3], squares + r);
    for (int q = 0; q < Q; q++) reduce_add4(sum[q][0], sum[q][1], sum[q][2], sum[q][3], dots + q * kBlockRows + r);
  }
}

// The same for i8 rows and 16-bit queries: integer sums are exact, and leave as floats. `rest`: the rows do not fill
// whole vectors; a kind of its own, because the calls in it would have the sums kept in memory for all rows.
template <int Q, Pass pass, bool rest>
static inline void stream_sums_i8(const int8_t* const* rows, int64_t dim, const int16_t* queries, int64_t query_pitch, const int16_t* ones, f32v (*sum)[4], f32v* square) {
  constexpr bool kSquares = pass != Pass::again;
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
    if (pass != Pass::again) reduce_add4(square[0], square[1], square[2], square[3], squares + r);
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
