// From the chunks' candidates to the results: the best by what they can score are scored canonically, then all others
// that can still be among the k. A chunk whose list lost a row that can be, is scored row by row (`repair_chunks`).
#pragma once
#include "scan_shape.h"

namespace hotset {

constexpr int kFinishRoom = 1024;
// Entries that a thread takes at a time.
constexpr int kFinishEach = 4;

static inline __host__ __device__ int exact_capacity(const ScanShape& shape) { return int(most(512, 2 * power_of_two_from(shape.size.high))); }
static inline __host__ __device__ int64_t finish_shared_bytes(const ScanShape& shape) {
  return int64_t(exact_capacity(shape) + 2) * 8 + int64_t(shape.size.high + kFinishRoom) * 8;
}

template <class T>
struct Finisher {
  const search_scan_params& p;
  const ScanShape& shape;
  char* const scratch;
  const int64_t query;  // of the window
  const float* const values;
  const ExactList exact;
  const double square;  // canonical

  // Four rows of a warp: the canonical keys of those that are there.
  __device__ void score(int64_t row, bool there) const {
    const float score = canonical_score<T>(p, values, square, row, there);
    if (there && threadIdx.x % 8 == 0) exact.append(key_of(p.metric, score, row));
  }

  __device__ bool repaired(int64_t chunk) const { return shape.head(scratch, query, chunk)->x & kRepaired; }

  __device__ void write_results(int64_t out_query) const {
    const float worst = p.metric == search_scan_metric_l2 ? INFINITY : -INFINITY;
    const int n = *exact.count;
    for (int64_t i = threadIdx.x; i < p.k; i += kScanThreads) {
      p.ids[out_query * p.k + i] = i < n ? int32_t(uint32_t(exact.keys[i])) : -1;
      p.scores[out_query * p.k + i] = i < n ? score_of_key(exact.keys[i], p.metric) : worst;
    }
    if (threadIdx.x == 0) p.found[out_query] = uint32_t(n);
  }
};

// A block a query.
template <class T>
__global__ void __launch_bounds__(kScanThreads) pick_results(search_scan_params p, ScanShape shape, int64_t first_query, char* scratch) {
  HOTSET_DYNAMIC_SHARED(shared);
  __shared__ int exact_count, count, unfinished;
  __shared__ unsigned list_floor;
  const int thread = int(threadIdx.x);
  const int64_t query = blockIdx.x;
  const ExactList exact = {reinterpret_cast<unsigned long long*>(shared), &exact_count, exact_capacity(shape), int(p.k)};
  unsigned* const keys = reinterpret_cast<unsigned*>(exact.keys + exact.capacity + 2);
  const int capacity = shape.size.high + kFinishRoom;
  const CandidateList list = {keys, keys + capacity, &count, &list_floor, {int(p.k), shape.size.high, capacity}};
  const float* const values = p.queries + (first_query + query) * p.dim;
  const double square = p.metric == search_scan_metric_cos ? canonical_square(values, p.dim) : 0;
  const Finisher<T> finisher = {p, shape, scratch, query, values, exact, square};
  if (thread == 0) count = 0, list_floor = kNoFloor, unfinished = 0;
  exact.start();

  // Of all entries the k and a few more that can score best.
  const int64_t slots = shape.chunks * shape.size.high;
  const uint2* const entries = shape.entries(scratch, query, 0);
  const uint2* const heads = shape.head(scratch, query, 0);
  for (int64_t base = 0; base < slots; base += kScanThreads * kFinishEach) {
    uint2 entry[kFinishEach];
    bool waiting[kFinishEach];
HOTSET_UNROLL
    for (int i = 0; i < kFinishEach; i++) {
      const int64_t slot = base + i * kScanThreads + thread, chunk = slot / shape.size.high;
      waiting[i] = slot < slots && slot - chunk * shape.size.high < heads[chunk].x;
      if (waiting[i]) entry[i] = entries[slot];
    }
    for (bool full = true; full;) {
HOTSET_UNROLL
      for (int i = 0; i < kFinishEach; i++) waiting[i] = waiting[i] && !list.append(entry[i].x, entry[i].y);
      __syncthreads();
      full = count > capacity;
      __syncthreads();
      if (full && thread < 32) list.cut();
      __syncthreads();
    }
  }
  if (thread < 32) list.cut();
  __syncthreads();

  const int n = count;
  for (int base = 0; base < n; base += kScanThreads / 8) {
    const bool there = base + thread / 8 < n;
    finisher.score(there ? list.ids[base + thread / 8] : 0, there);
  }
  __syncthreads();
  exact.sort();
  // The k-th canonical score so far: nothing below it is a result.
  const unsigned least_key = exact_count == p.k ? ordered(merit_of_key(exact.keys[p.k - 1], p.metric)) : 0;
  __syncthreads();

  for (int64_t chunk = thread; chunk < shape.chunks; chunk += kScanThreads) {
    uint2* const head = shape.head(scratch, query, chunk);
    if (head->y == kNoFloor || head->y < least_key) continue;
    ScanQueue* const queue = reinterpret_cast<ScanQueue*>(scratch);
    const unsigned long long at = atomicAdd(&queue->chunks, 1ull);
    reinterpret_cast<unsigned long long*>(shape.results(scratch, shape.window, p.k))[at] = (unsigned long long)(query * shape.chunks + chunk);
    head->x |= kRepaired;
    unfinished = 1;
  }
  __syncthreads();

  // What was not among the first, and can be.
  if (list_floor != kNoFloor && list_floor >= least_key) {
    for (int64_t base = 0; base < slots; base += kScanThreads / 8) {
      const int64_t slot = base + thread / 8, chunk = slot / shape.size.high;
      uint2 entry = make_uint2(0, 0);
      bool there = slot < slots && !(heads[chunk].x & kRepaired) && slot - chunk * shape.size.high < heads[chunk].x;
      if (there) entry = entries[slot];
      there = there && entry.x <= list_floor && entry.x >= least_key;
      exact.make_room(kScanThreads / 8);
      if (__any_sync(kAllLanes, there)) finisher.score(entry.y, there);
    }
    __syncthreads();
    exact.sort();
  }
  if (!unfinished) return finisher.write_results(first_query + query);

  // Rows of repaired chunks come again.
  unsigned long long* const results = shape.results(scratch, query, p.k);
  for (int64_t i = thread; i < p.k; i += kScanThreads) {
    const unsigned long long key = i < exact_count ? exact.keys[i] : kNoKey;
    results[i] = key != kNoKey && finisher.repaired(int64_t(unsigned(key)) / shape.chunk_rows) ? kNoKey : key;
  }
  if (thread == 0) {
    ScanQueue* const queue = reinterpret_cast<ScanQueue*>(scratch);
    const unsigned long long at = atomicAdd(&queue->queries, 1ull);
    (shape.results(scratch, shape.window, p.k) + shape.window * shape.chunks)[at] = (unsigned long long)(query);
  }
}

// Every row of the queued chunks, canonically; the k best in place of the candidates.
template <class T>
__global__ void __launch_bounds__(kScanThreads) repair_chunks(search_scan_params p, ScanShape shape, int64_t first_query, char* scratch) {
  HOTSET_DYNAMIC_SHARED(shared);
  __shared__ int count;
  const ExactList exact = {reinterpret_cast<unsigned long long*>(shared), &count, exact_capacity(shape), int(p.k)};
  const int64_t queued = int64_t(reinterpret_cast<const ScanQueue*>(scratch)->chunks);
  for (int64_t i = blockIdx.x; i < queued; i += gridDim.x) {
    const int64_t at = int64_t(shape.results(scratch, shape.window, p.k)[i]), query = at / shape.chunks, chunk = at % shape.chunks;
    const float* const values = p.queries + (first_query + query) * p.dim;
    const double square = p.metric == search_scan_metric_cos ? canonical_square(values, p.dim) : 0;
    const Finisher<T> finisher = {p, shape, scratch, query, values, exact, square};
    exact.start();
    const int64_t first = chunk * shape.chunk_rows, end = least(first + shape.chunk_rows, p.count);
    for (int64_t base = first; base < end; base += kScanThreads / 8) {
      const int64_t row = base + threadIdx.x / 8;
      const bool there = row < end && passes(p, row);
      exact.make_room(kScanThreads / 8);
      if (__any_sync(kAllLanes, there)) finisher.score(row, there);
    }
    __syncthreads();
    exact.sort();
    unsigned long long* const out = reinterpret_cast<unsigned long long*>(shape.entries(scratch, query, chunk));
    for (int j = int(threadIdx.x); j < count; j += kScanThreads) out[j] = exact.keys[j];
    if (threadIdx.x == 0) shape.head(scratch, query, chunk)->x = kRepaired | unsigned(count);
    __syncthreads();
  }
}

// The queued queries: their results so far with those of the repaired chunks.
template <class T>
__global__ void __launch_bounds__(kScanThreads) join_repaired(search_scan_params p, ScanShape shape, int64_t first_query, char* scratch) {
  HOTSET_DYNAMIC_SHARED(shared);
  __shared__ int count;
  const ExactList exact = {reinterpret_cast<unsigned long long*>(shared), &count, exact_capacity(shape), int(p.k)};
  const int64_t queued = int64_t(reinterpret_cast<const ScanQueue*>(scratch)->queries);
  for (int64_t i = blockIdx.x; i < queued; i += gridDim.x) {
    const int64_t query = int64_t((shape.results(scratch, shape.window, p.k) + shape.window * shape.chunks)[i]);
    const Finisher<T> finisher = {p, shape, scratch, query, nullptr, exact, 0};
    exact.start();
    for (int64_t j = threadIdx.x; j < p.k; j += kScanThreads) exact.append(shape.results(scratch, query, p.k)[j]);
    for (int64_t chunk = 0; chunk < shape.chunks; chunk++) {
      if (!finisher.repaired(chunk)) continue;
      const int n = int(shape.head(scratch, query, chunk)->x & ~kRepaired);
      const unsigned long long* const keys = reinterpret_cast<const unsigned long long*>(shape.entries(scratch, query, chunk));
      exact.make_room(n);
      for (int j = int(threadIdx.x); j < n; j += kScanThreads) exact.append(keys[j]);
    }
    __syncthreads();
    exact.sort();
    finisher.write_results(first_query + query);
    __syncthreads();
  }
}

}  // namespace hotset
