// Page-locked host memory, through which copies pass: a ring for uploads, and blocks for what is brought back.
#pragma once
#include <cstddef>
#include <deque>
#include <map>
#include <set>
#include <vector>

#include "host_runtime.h"

namespace hotset {

class Stream;

// Uploads are cut into pieces that lie in the ring until the device has taken them.
class Ring {
 public:
  static constexpr size_t capacity = size_t(32) << 20;
  static constexpr size_t piece = size_t(4) << 20;

  // A place for at most a piece; waits for the oldest copies where there is none. Then queue the copy, and `commit`.
  char* reserve(Stream& stream, size_t bytes);
  void commit(Stream& stream);
  void release();

 private:
  struct Segment {
    size_t begin;
    cudaEvent_t event;
  };
  void retire(Stream& stream);

  char* base_ = nullptr;
  size_t next_ = 0, end_ = 0;
  std::deque<Segment> busy_;  // in the order of the copies
};

struct Block {
  char* data = nullptr;
  size_t bytes = 0;
};

// Blocks of a power of two, kept for the next wait.
class Blocks {
 public:
  static constexpr size_t largest = size_t(16) << 20;

  Block take(Stream& stream, size_t bytes);
  void give(Block block);
  // All of them, those that were taken too.
  void release();

 private:
  static constexpr size_t kept_bytes = size_t(64) << 20;
  std::map<size_t, std::vector<char*>> free_;
  std::set<char*> all_;
  size_t kept_ = 0;
};

}  // namespace hotset
