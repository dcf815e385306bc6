// Keys of 64 bits, smaller is better, and lists of the best of them.
#pragma once
#include "device.h"

namespace hotset {

constexpr unsigned long long kNoKey = ~0ull;

// Larger floats have larger keys; NaNs do not come here.
static inline __device__ unsigned ordered(float value) {
  const unsigned bits = __float_as_uint(value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
static inline __device__ float from_ordered(unsigned key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// Sorted: the k smallest of the keys that come, in a buffer of a power of two, with a place behind it. No two are equal.
// By all threads of a block.
template <int Threads>
struct SortedList {
  unsigned long long* keys;
  int* count;
  int capacity, k;

  __device__ void append(unsigned long long key) const {
    if (key == kNoKey || key >= floor()) return;
    keys[atomicAdd(count, 1)] = key;
  }
  // The k-th key as of the last sort.
  __device__ unsigned long long floor() const { return keys[capacity]; }
  __device__ void start() const {
    if (threadIdx.x == 0) *count = 0, keys[capacity] = kNoKey;
    __syncthreads();
  }
  __device__ void make_room(int wanted) const {
    __syncthreads();
    if (*count + wanted > capacity) sort();
    __syncthreads();
  }
  // Bitonic; then cut to k.
  __device__ void sort() const {
    const int n = *count;
    if (n <= Threads) return sort_few(n);
    int size = 2;
    while (size < n) size *= 2;
    for (int i = n + int(threadIdx.x); i < size; i += Threads) keys[i] = kNoKey;
    __syncthreads();
    for (int run = 2; run <= size; run *= 2) {
      for (int apart = run / 2; apart > 0; apart /= 2) {
        for (int i = int(threadIdx.x); i < size / 2; i += Threads) {
          const int low = i / apart * apart * 2 + i % apart, high = low + apart;
          const bool ascending = (low & run) == 0;
          const unsigned long long a = keys[low], b = keys[high];
          if ((a > b) == ascending) keys[low] = b, keys[high] = a;
        }
        __syncthreads();
      }
    }
    cut(n);
  }

 private:
  // Each thread finds the place of its key; no two are equal.
  __device__ void sort_few(int n) const {
    const int at = int(threadIdx.x);
    const unsigned long long key = at < n ? keys[at] : kNoKey;
    int before = 0;
    for (int i = 0; i < n && at < n; i++) before += keys[i] < key;
    __syncthreads();
    if (at < n) keys[before] = key;
    __syncthreads();
    cut(n);
  }
  __device__ void cut(int n) const {
    if (threadIdx.x == 0) {
      *count = n < k ? n : k;
      keys[capacity] = n >= k ? keys[k - 1] : kNoKey;
    }
    __syncthreads();
  }
};

}  // namespace hotset
