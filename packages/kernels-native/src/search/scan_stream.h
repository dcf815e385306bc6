// A few queries: rows are read once, where they lie, four at a time; sums run along the vector. Bound by memory.
// i8 rows meet the query in 16-bit integers: exact sums, and a quantisation error that the bound includes.
#pragma once
#include "scan_rows.h"

namespace hotset {
namespace HOTSET_ISA {

constexpr int kStreamQueries = 4;

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

template <class T, int Q>
static void stream_dots(const T* const* rows, int n, int64_t dim, const float* queries, int64_t query_pitch, float* dots, float* squares) {
  const int64_t whole = dim / kLanes * kLanes;
  for (int r = 0; r < n; r += 4) {
    f32v sum[Q][4], square[4];
    for (int j = 0; j < 4; j++) {
      square[j] = zero();
      for (int q = 0; q < Q; q++) sum[q][j] = zero();
    }
    for (int64_t i = 0; i < whole; i += kLanes) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        const f32v x = load(rows[r + j] + i);
        square[j] = madd(x, x, square[j]);
#pragma GCC unroll 4
        for (int q = 0; q < Q; q++) sum[q][j] = madd(x, load(queries + q * query_pitch + i), sum[q][j]);
      }
    }
    if (whole < dim) {
      alignas(64) float ones[kLanes];
      for (int j = 0; j < kLanes; j++) ones[j] = j < kLanes - (dim - whole) ? 0.0f : 1.0f;
      for (int j = 0; j < 4; j++) {
        T buffer[kLanes];
        const f32v x = load(row_end(rows[r + j], dim, kLanes, buffer));
        square[j] = madd(mul(x, load(ones)), x, square[j]);
        for (int q = 0; q < Q; q++) sum[q][j] = madd(x, load(queries + q * query_pitch + whole), sum[q][j]);
      }
    }
    reduce_add4(square[0], square[1], square[2], square[3], squares + r);
    for (int q = 0; q < Q; q++) reduce_add4(sum[q][0], sum[q][1], sum[q][2], sum[q][3], dots + q * kBlockRows + r);
  }
}

template <int Q>
static void stream_dots_i8(const int8_t* const* rows, int n, int64_t dim, const int16_t* queries, int64_t query_pitch, const QueryTerms* terms, float* dots, float* squares) {
  const int64_t whole = dim / kLanes16 * kLanes16;
  alignas(64) int16_t ones[kLanes16];
  for (int j = 0; j < kLanes16; j++) ones[j] = j < kLanes16 - (dim - whole) ? 0 : -1;
  for (int r = 0; r < n; r += 2) {
    i32v sum[Q][2], square[2] = {zero_i32(), zero_i32()};
    for (int q = 0; q < Q; q++) sum[q][0] = sum[q][1] = zero_i32();
    for (int64_t i = 0; i < whole; i += kLanes16) {
      for (int j = 0; j < 2; j++) {
        const i16v x = widen_i8(rows[r + j] + i);
        square[j] = madd_i16(x, x, square[j]);
        for (int q = 0; q < Q; q++) sum[q][j] = madd_i16(x, load_i16(queries + q * query_pitch + i), sum[q][j]);
      }
    }
    if (whole < dim) {
      for (int j = 0; j < 2; j++) {
        int8_t buffer[kLanes16];
        const i16v x = widen_i8(row_end(rows[r + j], dim, kLanes16, buffer));
        square[j] = madd_i16(and_bits(x, load_i16(ones)), x, square[j]);
        for (int q = 0; q < Q; q++) sum[q][j] = madd_i16(x, load_i16(queries + q * query_pitch + whole), sum[q][j]);
      }
    }
    for (int j = 0; j < 2; j++) {
      squares[r + j] = float(reduce_add(square[j]));
      for (int q = 0; q < Q; q++) dots[q * kBlockRows + r + j] = float(reduce_add(sum[q][j])) * terms[q].scale;
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
