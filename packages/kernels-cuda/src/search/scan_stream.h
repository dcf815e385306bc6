// Up to 4 queries stream the rows where they lie: a few lanes a row, two rows a lane, a list of candidates a warp.
#pragma once
#include "scan_shape.h"

namespace hotset {

// The roundings that one sum of a row carries: a lane's share of it in order, then a tree.
static inline __host__ __device__ float stream_unit(int64_t dim, int lanes) { return float(ceil_div(dim, lanes) + 48) * 0x1p-24f; }

template <class T, int Q, bool Whole>
struct StreamRows {
  static constexpr int R = 2;
  static constexpr int E = kVector<T>;
  const search_scan_params& p;
  const float* const* queries;
  float dot[R][Q], square[R];

  __device__ __forceinline__ void sum(const int64_t (&row)[R], int lanes) {
    const int at = int(threadIdx.x) % lanes;
    const T* values[R];
HOTSET_UNROLL
    for (int r = 0; r < R; r++) {
      values[r] = static_cast<const T*>(p.rows) + row[r] * p.rows_pitch;
      square[r] = 0;
HOTSET_UNROLL
      for (int q = 0; q < Q; q++) dot[r][q] = 0;
    }
    const int64_t whole = Whole ? p.dim / E : 0;
HOTSET_UNROLL_BY(4)
    for (int64_t v = at; v < whole; v += lanes) {
      float x[R][E];
HOTSET_UNROLL
      for (int r = 0; r < R; r++) widen<T>(__ldg(reinterpret_cast<const uint4*>(values[r]) + v), x[r]);
HOTSET_UNROLL
      for (int e = 0; e < E; e += 4) {
HOTSET_UNROLL
        for (int q = 0; q < Q; q++) {
          const float4 y = __ldg(reinterpret_cast<const float4*>(queries[q] + v * E + e));
HOTSET_UNROLL
          for (int r = 0; r < R; r++) {
            dot[r][q] = fmaf(x[r][e], y.x, dot[r][q]);
            dot[r][q] = fmaf(x[r][e + 1], y.y, dot[r][q]);
            dot[r][q] = fmaf(x[r][e + 2], y.z, dot[r][q]);
            dot[r][q] = fmaf(x[r][e + 3], y.w, dot[r][q]);
          }
        }
HOTSET_UNROLL
        for (int r = 0; r < R; r++)
HOTSET_UNROLL
          for (int i = 0; i < 4; i++) square[r] = fmaf(x[r][e + i], x[r][e + i], square[r]);
      }
    }
    for (int64_t i = whole * E + at; i < p.dim; i += lanes) {
HOTSET_UNROLL
      for (int r = 0; r < R; r++) {
        const float x = widen_one(values[r] + i);
        square[r] = fmaf(x, x, square[r]);
HOTSET_UNROLL
        for (int q = 0; q < Q; q++) dot[r][q] = fmaf(x, queries[q][i], dot[r][q]);
      }
    }
    for (int apart = lanes / 2; apart > 0; apart /= 2) {
HOTSET_UNROLL
      for (int r = 0; r < R; r++) {
        square[r] += __shfl_xor_sync(kAllLanes, square[r], apart);
HOTSET_UNROLL
        for (int q = 0; q < Q; q++) dot[r][q] += __shfl_xor_sync(kAllLanes, dot[r][q], apart);
      }
    }
  }
};

// Joins the lists of a block's warps, [warps][capacity], into one and writes it. By one warp.
static inline __device__ void write_lists(const CandidateList& all, const unsigned* floors, int lists, uint2* head, uint2* entries) {
  const int lane = int(threadIdx.x % 32);
  unsigned floor = kNoFloor;
  for (int i = 0; i < lists; i++) floor = floors[i] > floor ? floors[i] : floor;
  if (lane == 0) {
    *all.count = all.size.capacity;
    *all.floor = floor;
  }
  __syncwarp();
  all.cut();
  const int n = *all.count;
  for (int i = lane; i < n; i += 32) entries[i] = make_uint2(all.keys[i], all.ids[i]);
  if (lane == 0) *head = make_uint2(unsigned(n), *all.floor);
}

template <class T, int Q, bool Whole>
__global__ void __launch_bounds__(kScanThreads) stream_rows(search_scan_params p, ScanShape shape, int64_t first_query, int64_t last_query, char* scratch) {
  HOTSET_DYNAMIC_SHARED(shared);
  __shared__ double partial[kScanWarps];
  __shared__ int counts[Q * kScanWarps + Q];
  __shared__ unsigned floors[Q * kScanWarps + Q];
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32, lanes = shape.lanes, step = 32 / lanes;
  const int64_t chunk = blockIdx.x % shape.chunks, group = blockIdx.x / shape.chunks * Q;
  const int capacity = shape.size.capacity;
  unsigned* const keys = reinterpret_cast<unsigned*>(shared);
  unsigned* const ids = keys + Q * kScanWarps * capacity;
  if (blockIdx.x == 0 && thread == 0) *reinterpret_cast<ScanQueue*>(scratch) = {0, 0};

  const float* queries[Q];
  QueryTerms terms[Q];
HOTSET_UNROLL
  for (int q = 0; q < Q; q++) {
    // A query beyond the last one is the last one over again, and keeps nothing.
    queries[q] = p.queries + least(first_query + group + q, last_query - 1) * p.dim;
    terms[q] = measure_query(queries[q], p.dim, partial);
    if (first_query + group + q >= last_query) terms[q].state = query_dead;
  }
  for (int i = thread; i < Q * kScanWarps; i += kScanThreads) counts[i] = 0, floors[i] = kNoFloor;
  for (int i = thread; i < Q * kScanWarps * capacity; i += kScanThreads) keys[i] = 0;
  __syncthreads();

  const ScoreBound bound = {p.metric, stream_unit(p.dim, lanes), sqrtf(float(p.dim))};
  StreamRows<T, Q, Whole> rows = {p, queries, {}, {}};
  const int64_t first = chunk * shape.chunk_rows, end = least(first + shape.chunk_rows, p.count);
  for (int64_t base = first + warp * 2 * step; base < end; base += kScanWarps * 2 * step) {
    int64_t row[2];
    bool open[2];
HOTSET_UNROLL
    for (int r = 0; r < 2; r++) {
      row[r] = base + r * step + lane / lanes;
      open[r] = row[r] < end && passes(p, row[r]);
      if (!open[r]) row[r] = base;
    }
    if (!__any_sync(kAllLanes, open[0] || open[1])) continue;
    rows.sum(row, lanes);
HOTSET_UNROLL
    for (int r = 0; r < 2; r++) {
      const float scale = sizeof(T) == 1 ? p.row_scale[row[r]] : 1;
HOTSET_UNROLL
      for (int q = 0; q < Q; q++) {
        const CandidateList list = {keys + (q * kScanWarps + warp) * capacity, ids + (q * kScanWarps + warp) * capacity, counts + q * kScanWarps + warp, floors + q * kScanWarps + warp, shape.size};
        bool waiting = open[r] && lane % lanes == 0 && terms[q].state != query_dead;
        const unsigned key = waiting ? ordered(bound(terms[q], rows.dot[r][q], rows.square[r], scale)) : 0;
        waiting = waiting && !list.append(key, unsigned(row[r]));
        while (__any_sync(kAllLanes, waiting)) {
          list.cut();
          waiting = waiting && !list.append(key, unsigned(row[r]));
        }
      }
    }
  }
  // What a cut left behind the entries is none.
  __syncwarp();
HOTSET_UNROLL
  for (int q = 0; q < Q; q++)
    for (int i = counts[q * kScanWarps + warp] + lane; i < capacity; i += 32) keys[(q * kScanWarps + warp) * capacity + i] = 0;
  __syncthreads();
  for (int q = warp; q < Q; q += kScanWarps) {
    const int64_t query = group + q;
    if (first_query + query >= last_query) continue;
    const int at = q * kScanWarps;
    const CandidateList all = {keys + at * capacity, ids + at * capacity, counts + Q * kScanWarps + q, floors + Q * kScanWarps + q, {shape.size.low, shape.size.high, kScanWarps * capacity}};
    write_lists(all, floors + at, kScanWarps, shape.head(scratch, query, chunk), shape.entries(scratch, query, chunk));
  }
}

}  // namespace hotset
