// A block of queries meets panels of 128 rows on tensor cores. Queries are split into two 16-bit parts, high and low, so
// that about as much as f32 holds is left of them; what is lost has a measured length, which the bound of a row's score
// carries. f16 and bf16 rows are taken as they are, i8 rows as f16, both exactly; f32 rows as two bf16 parts.
#pragma once
#include "../tensor_core.h"
#include "scan_shape.h"

namespace hotset {

template <class T>
struct PanelType { using Part = f16; };
template <>
struct PanelType<float> { using Part = bf16; };
template <>
struct PanelType<bf16> { using Part = bf16; };

static inline __device__ uint16_t to_part(const f16*, float value) { return to_f16(value); }
static inline __device__ uint16_t to_part(const bf16*, float value) { return to_bf16(value); }
static inline __device__ float from_part(const f16*, uint16_t bits) { return from_f16(bits); }
static inline __device__ float from_part(const bf16*, uint16_t bits) { return from_bf16(bits); }

// A tile's 16 products and its sum are aligned to the largest and cut at 2^-23 of it or below (so measured of every
// generation: Fasi et al., PeerJ CS 2021; Hopper keeps more): 17 such errors for each of a sum's tiles. What high times
// high, high times low and low times high leave out of f32 rows is below 2^-16.
template <class T>
__host__ __device__ float panel_unit(int64_t padded) { return float(padded / 16 * (1 + kRowParts<T>) * 17) * 0x1p-23f + (sizeof(T) == 4 ? 0x1p-16f : 0); }

// The parts of each query, [2][window][padded], and its terms.
template <class Part>
__global__ void __launch_bounds__(kScanThreads) split_queries(search_scan_params p, ScanShape shape, int64_t first_query, char* scratch) {
  __shared__ double partial[kScanWarps];
  __shared__ float largest_shared[kScanWarps];
  const int64_t query = blockIdx.x;
  const float* const values = p.queries + (first_query + query) * p.dim;
  QueryTerms t = measure_query(values, p.dim, partial);
  const Part* const kind = nullptr;
  float scale = 1;
  if (shape.scaled && t.state == query_ordinary) {
    float largest = 0;
    for (int64_t i = threadIdx.x; i < p.dim; i += kScanThreads) largest = fmaxf(largest, fabsf(values[i]));
    largest = warp_max(largest);
    if (threadIdx.x % 32 == 0) largest_shared[threadIdx.x / 32] = largest;
    __syncthreads();
    for (int i = 0; i < kScanWarps; i++) largest = fmaxf(largest, largest_shared[i]);
    // The largest component comes to lie between 256 and 512; its exponent is between -58 and 50.
    scale = __uint_as_float((262u - (__float_as_uint(largest) >> 23)) << 23);
  }
  uint16_t* const high = reinterpret_cast<uint16_t*>(scratch + shape.parts_at) + query * shape.padded;
  uint16_t* const low = high + shape.window * shape.padded;
  double lost = 0;
  for (int64_t i = threadIdx.x; i < shape.padded; i += kScanThreads) {
    const float value = i < p.dim && t.state == query_ordinary ? values[i] * scale : 0;
    high[i] = to_part(kind, value);
    low[i] = to_part(kind, value - from_part(kind, high[i]));
    const double rest = double(value) - double(from_part(kind, high[i])) - double(from_part(kind, low[i]));
    lost += rest * rest;
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) lost += shuffle_double(lost, lanes);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = lost;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < kScanWarps; i++) lost += partial[i];
  t.lost = float(sqrt(lost)) / scale * 1.01f;
  t.unscale = 1 / scale;
  reinterpret_cast<QueryTerms*>(scratch + shape.terms_at)[query] = t;
  if (query == 0) *reinterpret_cast<ScanQueue*>(scratch) = {0, 0};
}

// N tiles of 8 queries; a warp takes 16 of the panel's rows.
template <class T, int N>
struct Panel {
  using Part = typename PanelType<T>::Part;
  static constexpr int E = kVector<T>;
  static constexpr int kLanesOfRow = kPanelColumns / E;                         // a vector each
  static constexpr int kPasses = kPanelRows * kLanesOfRow / kScanThreads;       // vectors of a thread
  const search_scan_params& p;
  const ScanShape& shape;
  uint16_t* const rows;     // [row parts][128][pitch]
  uint16_t* const queries;  // [2][8 N][pitch]
  float* const squares;     // [128]
  float* const scales;
  unsigned* const open;     // rows that may be returned
  float sums[N][4];
  float square[kPasses];

  // 64 components of the panel's rows, in parts; zeros where there are none.
  __device__ __forceinline__ void stage_rows(int64_t base, int64_t end, int64_t column) {
    const int thread = int(threadIdx.x), at = thread % kLanesOfRow;
HOTSET_UNROLL
    for (int pass = 0; pass < kPasses; pass++) {
      const int r = thread / kLanesOfRow + pass * (kScanThreads / kLanesOfRow);
      const int64_t row = base + r, first = column + at * E;
      const T* const from = static_cast<const T*>(p.rows) + row * p.rows_pitch + first;
      float x[E];
      if (row < end && shape.whole && first + E <= p.dim) {
        widen<T>(__ldg(reinterpret_cast<const uint4*>(from)), x);
      } else {
HOTSET_UNROLL
        for (int e = 0; e < E; e++) x[e] = row < end && first + e < p.dim ? widen_one(from + e) : 0;
      }
      uint16_t* const to = rows + r * kPanelPitch + at * E;
HOTSET_UNROLL
      for (int e = 0; e < E; e += 2) {
        const uint16_t a = to_part(static_cast<const Part*>(nullptr), x[e]), b = to_part(static_cast<const Part*>(nullptr), x[e + 1]);
        *reinterpret_cast<unsigned*>(to + e) = a | unsigned(b) << 16;
        square[pass] = fmaf(x[e], x[e], square[pass]);
        square[pass] = fmaf(x[e + 1], x[e + 1], square[pass]);
        if (kRowParts<T> == 1) continue;
        const unsigned low = to_bf16(x[e] - from_bf16(a)) | unsigned(to_bf16(x[e + 1] - from_bf16(b))) << 16;
        *reinterpret_cast<unsigned*>(to + kPanelRows * kPanelPitch + e) = low;
      }
    }
  }

  __device__ __forceinline__ void stage_queries(const char* scratch, int64_t group, int64_t column) {
    const uint16_t* const parts = reinterpret_cast<const uint16_t*>(scratch + shape.parts_at);
    for (int i = int(threadIdx.x); i < 2 * 8 * N * (kPanelColumns / 8); i += kScanThreads) {
      const int at = i % (kPanelColumns / 8), q = i / (kPanelColumns / 8) % (8 * N), part = i / (kPanelColumns / 8) / (8 * N);
      const int64_t query = least(group + q, shape.window - 1);
      *reinterpret_cast<uint4*>(queries + (part * 8 * N + q) * kPanelPitch + at * 8) =
          __ldg(reinterpret_cast<const uint4*>(parts + (part * shape.window + query) * shape.padded + column + at * 8));
    }
  }

  __device__ __forceinline__ void multiply() {
    const int lane = int(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    const uint16_t* const row = rows + (int(threadIdx.x / 32) * 16 + g) * kPanelPitch + 2 * t;
    const uint16_t* const query = queries + g * kPanelPitch + 2 * t;
    const auto word = [](const uint16_t* at) { return *reinterpret_cast<const unsigned*>(at); };
HOTSET_UNROLL
    for (int k = 0; k < kPanelColumns; k += 16) {
      unsigned a[kRowParts<T>][4];
HOTSET_UNROLL
      for (int part = 0; part < kRowParts<T>; part++) {
        const uint16_t* const from = row + part * kPanelRows * kPanelPitch + k;
        a[part][0] = word(from);
        a[part][1] = word(from + 8 * kPanelPitch);
        a[part][2] = word(from + 8);
        a[part][3] = word(from + 8 * kPanelPitch + 8);
      }
HOTSET_UNROLL
      for (int n = 0; n < N; n++) {
        const uint16_t* const from = query + n * 8 * kPanelPitch + k;
        const unsigned high[2] = {word(from), word(from + 8)};
        const uint16_t* const below = from + 8 * N * kPanelPitch;
        const unsigned low[2] = {word(below), word(below + 8)};
        multiply_tile<Part>(sums[n], a[0], low);
        if (kRowParts<T> == 2) multiply_tile<Part>(sums[n], a[kRowParts<T> - 1], high);
        multiply_tile<Part>(sums[n], a[0], high);
      }
    }
  }

  // What the rows of the panel are judged by.
  __device__ __forceinline__ void finish_rows(int64_t base, int64_t end) {
    const int thread = int(threadIdx.x);
HOTSET_UNROLL
    for (int pass = 0; pass < kPasses; pass++) {
      for (int lanes = kLanesOfRow / 2; lanes > 0; lanes /= 2) square[pass] += __shfl_xor_sync(kAllLanes, square[pass], lanes);
      if (thread % kLanesOfRow == 0) squares[thread / kLanesOfRow + pass * (kScanThreads / kLanesOfRow)] = square[pass];
    }
    if (thread >= kPanelRows) return;
    const int64_t row = base + thread;
    open[thread] = row < end && passes(p, row);
    scales[thread] = sizeof(T) == 1 && row < end ? p.row_scale[row] : 1;
  }
};

template <class T, int N>
__global__ void __launch_bounds__(kScanThreads) panel_rows(search_scan_params p, ScanShape shape, int64_t queries_here, char* scratch) {
  HOTSET_DYNAMIC_SHARED(shared);
  __shared__ int full;
  constexpr int Q = 8 * N;
  uint16_t* const row_tile = reinterpret_cast<uint16_t*>(shared);
  uint16_t* const query_tile = row_tile + kRowParts<T> * kPanelRows * kPanelPitch;
  float* const squares = reinterpret_cast<float*>(query_tile + 2 * Q * kPanelPitch);
  float* const scales = squares + kPanelRows;
  unsigned* const open = reinterpret_cast<unsigned*>(scales + kPanelRows);
  QueryTerms* const terms = reinterpret_cast<QueryTerms*>(open + kPanelRows);
  int* const counts = reinterpret_cast<int*>(terms + Q);
  unsigned* const floors = reinterpret_cast<unsigned*>(counts + Q);
  unsigned* const keys = floors + Q;
  unsigned* const ids = keys + Q * shape.size.capacity;
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int64_t chunk = blockIdx.x % shape.chunks, group = blockIdx.x / shape.chunks * Q;
  for (int q = thread; q < Q; q += kScanThreads) {
    terms[q] = reinterpret_cast<const QueryTerms*>(scratch + shape.terms_at)[least(group + q, queries_here - 1)];
    // A query beyond the last one keeps nothing.
    if (group + q >= queries_here) terms[q].state = query_dead;
    counts[q] = 0;
    floors[q] = kNoFloor;
  }
  if (thread == 0) full = 0;
  const auto list_of = [&](int q) { return CandidateList{keys + q * shape.size.capacity, ids + q * shape.size.capacity, counts + q, floors + q, shape.size}; };
  const ScoreBound bound = {p.metric, panel_unit<T>(shape.padded), sqrtf(float(p.dim))};
  Panel<T, N> panel = {p, shape, row_tile, query_tile, squares, scales, open, {}, {}};
  const int64_t first = chunk * shape.chunk_rows, end = least(first + shape.chunk_rows, p.count);
  for (int64_t base = first; base < end; base += kPanelRows) {
HOTSET_UNROLL
    for (int n = 0; n < N; n++)
HOTSET_UNROLL
      for (int i = 0; i < 4; i++) panel.sums[n][i] = 0;
HOTSET_UNROLL
    for (int pass = 0; pass < Panel<T, N>::kPasses; pass++) panel.square[pass] = 0;
    for (int64_t column = 0; column < shape.padded; column += kPanelColumns) {
      __syncthreads();
      panel.stage_rows(base, end, column);
      panel.stage_queries(scratch, group, column);
      __syncthreads();
      panel.multiply();
    }
    panel.finish_rows(base, end);
    __syncthreads();

    // Bit 4 n + i: the sum i of tile n waits for room in its list.
    unsigned waiting = 0;
    unsigned key[N][4];
HOTSET_UNROLL
    for (int n = 0; n < N; n++) {
HOTSET_UNROLL
      for (int i = 0; i < 4; i++) {
        const int r = warp * 16 + lane / 4 + i / 2 * 8, q = n * 8 + lane % 4 * 2 + i % 2;
        const QueryTerms& t = terms[q];
        const bool wanted = open[r] && t.state != query_dead;
        key[n][i] = wanted ? ordered(bound(t, panel.sums[n][i] * t.unscale, squares[r], scales[r])) : 0;
        if (wanted) waiting |= 1u << (4 * n + i);
      }
    }
    for (bool again = true; again;) {
HOTSET_UNROLL
      for (int n = 0; n < N; n++)
HOTSET_UNROLL
        for (int i = 0; i < 4; i++) {
          const int r = warp * 16 + lane / 4 + i / 2 * 8, q = n * 8 + lane % 4 * 2 + i % 2;
          if ((waiting >> (4 * n + i) & 1) && list_of(q).append(key[n][i], unsigned(base + r))) waiting &= ~(1u << (4 * n + i));
        }
      if (waiting) full = 1;
      __syncthreads();
      again = full;
      __syncthreads();
      if (!again) break;
      for (int q = warp; q < Q; q += kScanWarps)
        if (counts[q] > shape.size.capacity) list_of(q).cut();
      if (thread == 0) full = 0;
      __syncthreads();
    }
  }
  __syncthreads();
  for (int q = warp; q < Q; q += kScanWarps) {
    if (group + q >= queries_here) continue;
    const CandidateList list = list_of(q);
    list.cut();
    const int n = *list.count;
    uint2* const entries = shape.entries(scratch, group + q, chunk);
    for (int i = lane; i < n; i += 32) entries[i] = make_uint2(list.keys[i], list.ids[i]);
    if (lane == 0) *shape.head(scratch, group + q, chunk) = make_uint2(unsigned(n), *list.floor);
  }
}

}  // namespace hotset
