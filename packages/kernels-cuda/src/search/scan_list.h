// Candidates of one query: rows whose score may be among the best, with the most it can be. When a list is full, about
// the best `low` to `high` of them are kept; `floor` is the most that a row which is no longer there can score, so the
// list says itself where it may have lost a result, whatever the order in which rows came.
#pragma once
#include "scan_terms.h"

namespace hotset {

struct ListSize {
  int low, high, capacity;
  __host__ __device__ static ListSize of(int64_t k, int room) {
    const int slack = int(most(16, k / 8));
    return {int(k) + slack, int(k) + 2 * slack, int(round_up(k + 2 * slack + room, 2))};
  }
};

// No row has been turned away.
constexpr unsigned kNoFloor = 0;

struct CandidateList {
  unsigned* keys;  // ordered(most that it can score)
  unsigned* ids;
  int* count;      // may exceed the capacity until `cut`
  unsigned* floor;
  ListSize size;

  // False where there is no room.
  __device__ __forceinline__ bool append(unsigned key, unsigned id) const {
    if (key <= *floor) return true;
    const int slot = atomicAdd(count, 1);
    if (slot >= size.capacity) return false;
    keys[slot] = key;
    ids[slot] = id;
    return true;
  }

  __device__ void cut() const;
};

// By one warp: only what is above a floor stays.
static inline __device__ void keep_above(const CandidateList& list, int n, unsigned floor_now) {
  const int lane = int(threadIdx.x % 32);
  int kept = 0;
  for (int base = 0; base < n; base += 32) {
    const bool there = base + lane < n;
    const unsigned key = there ? list.keys[base + lane] : 0, id = there ? list.ids[base + lane] : 0;
    const bool stays = there && key > floor_now;
    const unsigned votes = __ballot_sync(kAllLanes, stays);
    // What is read lies at or behind what is written.
    if (stays) {
      const int slot = kept + __popc(votes & ((1u << lane) - 1));
      list.keys[slot] = key;
      list.ids[slot] = id;
    }
    kept += __popc(votes);
    __syncwarp();
  }
  if (lane == 0) {
    *list.count = kept;
    *list.floor = floor_now;
  }
  __syncwarp();
}

// By one warp, all its lanes: keeps low to high of the best, fewer where there are too many equals. Rare, and long: one
// copy of it a kernel.
static __device__ __noinline__ void cut_list(CandidateList list) {
  __syncwarp();
  const int lane = int(threadIdx.x % 32), n = int(least(*list.count, list.size.capacity));
  unsigned floor_now = *list.floor;
  __syncwarp();
  unsigned smallest = ~0u, largest = 0;
  int above_floor = 0;
  for (int base = 0; base < n; base += 32) {
    const unsigned key = base + lane < n ? list.keys[base + lane] : 0;
    above_floor += __popc(__ballot_sync(kAllLanes, key > floor_now));
    if (key <= floor_now) continue;
    smallest = key < smallest ? key : smallest;
    largest = key > largest ? key : largest;
  }
  if (above_floor > list.size.high) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const unsigned a = __shfl_xor_sync(kAllLanes, smallest, lanes), b = __shfl_xor_sync(kAllLanes, largest, lanes);
      smallest = a < smallest ? a : smallest;
      largest = b > largest ? b : largest;
    }
    // More than `high` are above `below`; fewer than `low` are above `above`.
    unsigned below = smallest - 1, above = largest;
    while (above - below > 1) {
      const unsigned middle = below + (above - below) / 2;
      int larger = 0;
      for (int base = 0; base < n; base += 32) larger += __popc(__ballot_sync(kAllLanes, base + lane < n && list.keys[base + lane] > middle));
      if (larger > list.size.high) below = middle;
      else above = middle;
      if (larger >= list.size.low && larger <= list.size.high) break;
    }
    floor_now = above;
  }
  keep_above(list, n, floor_now);
}

inline __device__ void CandidateList::cut() const { cut_list(*this); }

// Canonical keys, sorted: the k smallest of what comes.
using ExactList = SortedList<kScanThreads>;

}  // namespace hotset
