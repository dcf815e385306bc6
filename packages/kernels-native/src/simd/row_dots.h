// Dot products of rows where they lie with a few vectors at once: each row is read, and widened, once for all of them.
#pragma once
#include "simd.h"

namespace hotset {
namespace HOTSET_ISA {

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

// What a pass over rows does besides the dot products.
enum class Pass {
  first,        // sum the rows' squares as well
  prefetch,     // the same, asking for the lines kPrefetchBytes ahead
  first_ahead,  // the same, asking for other rows, row by row: those that are needed next
  ahead,        // ask for these, no squares
  fetch,        // ask for the lines kPrefetchBytes ahead, no squares
  again,        // nothing
};
constexpr bool sums_squares(Pass pass) { return pass == Pass::first || pass == Pass::prefetch || pass == Pass::first_ahead; }
constexpr bool asks_ahead(Pass pass) { return pass == Pass::first_ahead || pass == Pass::ahead; }
constexpr bool fetches(Pass pass) { return pass == Pass::prefetch || pass == Pass::fetch; }

// Intel's own prefetcher leaves bandwidth unused on rows of a few lines: 9 against 18 GB/s on 128-byte rows, 14.6
// against 15.9 on 512-byte ones (one thread of a Xeon, 1M rows). AMD's does not, and is slowed down by ours.
constexpr int kPrefetchBytes = 2048;

// Rows that are summed side by side: as many sums as fit the registers beside a row and a query vector each.
constexpr int stream_rows(int queries) { return (queries + 1) * 4 + 4 <= kRegisters ? 4 : 2; }

// The sums of R rows with Q queries, each still a vector. `rest`: the rows do not fill whole vectors; a kind of its own,
// because the calls in it would have the sums kept in memory for all rows.
template <class T, int Q, int R, Pass pass, bool rest>
static inline void stream_sums(const T* const* rows, int64_t dim, const float* queries, int64_t query_pitch, const float* ones, f32v (*sum)[4], f32v* square,
                               const void* const* ahead = nullptr) {
  constexpr bool kSquares = sums_squares(pass);
  const int64_t whole = dim / kLanes * kLanes;
  f32v s[Q][R], t[R];
  for (int j = 0; j < R; j++) {
    t[j] = zero();
    for (int q = 0; q < Q; q++) s[q][j] = zero();
  }
  for (int64_t i = 0; i < whole; i += kLanes) {
    f32v x[R];
    // Once a line.
    if (asks_ahead(pass) && i * int64_t(sizeof(T)) % 64 == 0) {
#pragma GCC unroll 4
      for (int j = 0; j < R; j++) __builtin_prefetch(static_cast<const char*>(ahead[j]) + i * int64_t(sizeof(T)));
    }
#pragma GCC unroll 4
    for (int j = 0; j < R; j++) {
      if (fetches(pass)) __builtin_prefetch(reinterpret_cast<const char*>(rows[j] + i) + kPrefetchBytes);
      x[j] = load(rows[j] + i);
      if (kSquares) t[j] = madd(x[j], x[j], t[j]);
    }
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) {
      const f32v y = held(load(queries + q * query_pitch + i));
#pragma GCC unroll 4
      for (int j = 0; j < R; j++) s[q][j] = madd(x[j], y, s[q][j]);
    }
  }
  if (rest) {
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

}  // namespace HOTSET_ISA
}  // namespace hotset
