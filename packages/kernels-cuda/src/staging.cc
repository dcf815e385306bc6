#include "staging.h"

#include "stream.h"

namespace hotset {

char* Ring::reserve(Stream& stream, size_t bytes) {
  if (!base_) {
    void* memory = nullptr;
    stream.check(cudaMallocHost(&memory, capacity));
    base_ = static_cast<char*>(memory);
  }
  while (!busy_.empty() && cudaEventQuery(busy_.front().event) == cudaSuccess) retire(stream);
  // "Not ready" is no error, but CUDA keeps it like one.
  cudaGetLastError();
  // Segments lie one behind the other, so the oldest one is the next in the way: at first up to the end, then from 0.
  if (next_ + bytes > capacity) {
    while (!busy_.empty() && busy_.front().begin >= next_) retire(stream);
    next_ = 0;
  }
  while (!busy_.empty() && busy_.front().begin >= next_ && busy_.front().begin < next_ + bytes) retire(stream);
  end_ = next_ + (bytes + 255) / 256 * 256;
  return base_ + next_;
}

void Ring::commit(Stream& stream) {
  const cudaEvent_t event = stream.take_event(false);
  busy_.push_back({next_, event});
  next_ = end_;
  stream.check(cudaEventRecord(event, stream.handle()));
}

void Ring::retire(Stream& stream) {
  const Segment segment = busy_.front();
  stream.check(cudaEventSynchronize(segment.event));
  busy_.pop_front();
  stream.give_event(segment.event, false);
}

void Ring::release() {
  busy_.clear();
  if (base_) cudaFreeHost(base_);
  base_ = nullptr;
}

Block Blocks::take(Stream& stream, size_t bytes) {
  size_t size = 4096;
  while (size < bytes) size *= 2;
  std::vector<char*>& list = free_[size];
  if (!list.empty()) {
    char* const data = list.back();
    list.pop_back();
    kept_ -= size;
    return {data, size};
  }
  void* memory = nullptr;
  stream.check(cudaMallocHost(&memory, size));
  all_.insert(static_cast<char*>(memory));
  return {static_cast<char*>(memory), size};
}

void Blocks::give(Block block) {
  if (!block.data) return;
  if (kept_ + block.bytes > kept_bytes) {
    all_.erase(block.data);
    cudaFreeHost(block.data);
    return;
  }
  free_[block.bytes].push_back(block.data);
  kept_ += block.bytes;
}

void Blocks::release() {
  for (char* data : all_) cudaFreeHost(data);
  all_.clear();
  free_.clear();
  kept_ = 0;
}

}  // namespace hotset
