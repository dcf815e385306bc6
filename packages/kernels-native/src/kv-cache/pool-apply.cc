// kv-cache/pool-apply: allocate, retain, release and discard on a block pool in a flat buffer.
//
// State: magic, blocks, free blocks, head, tail, 3 spare; references [blocks], previous [blocks], next [blocks].
// A doubly linked free queue; each command is O(1) and touches at most 4 words. Links are compared before they
// are followed, so a damaged state is a fault and never a wild access. Commands depend on each other: one task.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr uint32_t kNone = 0xffffffff, kMagic = 0x4c4f4f50;
enum { magic_at, blocks_at, free_at, head_at, tail_at, header_words = 8 };

struct Pool {
  const kv_cache_pool_apply_params& p;
  Status& status;
  uint32_t* const state = p.state;
  const uint32_t blocks = uint32_t(p.blocks);
  uint32_t* const references = state + header_words;
  uint32_t* const previous = references + blocks;
  uint32_t* const next = previous + blocks;

  Pool(const kv_cache_pool_apply_params& params, Status& s) : p(params), status(s) {}

  void initialise() const {
    memset(state, 0, (header_words + 3 * size_t(blocks)) * 4);
    state[magic_at] = kMagic;
    state[blocks_at] = state[free_at] = blocks;
    state[tail_at] = blocks - 1;
    for (uint32_t b = 0; b < blocks; b++) {
      previous[b] = b == 0 ? kNone : b - 1;
      next[b] = b == blocks - 1 ? kNone : b + 1;
    }
  }

  bool damaged(const uint32_t* word, uint32_t value) const {
    fail(status, kv_cache_pool_apply_port_state, word - state, value);
    return false;
  }

  // Takes a block out of the free queue; `from` is the word its number came from.
  bool unlink(uint32_t block, const uint32_t* from) const {
    if (block >= blocks) return damaged(from, block);
    const uint32_t before = read_once(previous + block), after = read_once(next + block);
    if (before != kNone && before >= blocks) return damaged(previous + block, before);
    if (after != kNone && after >= blocks) return damaged(next + block, after);
    (before == kNone ? state[head_at] : next[before]) = after;
    (after == kNone ? state[tail_at] : previous[after]) = before;
    state[free_at]--;
    return true;
  }

  bool link(uint32_t block, bool front) const {
    uint32_t& end = state[front ? head_at : tail_at];
    const uint32_t neighbour = read_once(&end);
    if (neighbour != kNone && neighbour >= blocks) return damaged(&end, neighbour);
    previous[block] = front ? kNone : neighbour;
    next[block] = front ? neighbour : kNone;
    (neighbour == kNone ? state[front ? tail_at : head_at] : (front ? previous : next)[neighbour]) = block;
    end = block;
    state[free_at]++;
    return true;
  }

  int32_t allocate() const {
    const uint32_t block = read_once(state + head_at);
    if (block == kNone || !unlink(block, state + head_at)) return -1;
    references[block] = 1;
    return int32_t(block);
  }

  int32_t retain(uint32_t block) const {
    if (references[block] == 0 && !unlink(block, references + block)) return -1;
    return int32_t(++references[block]);
  }

  int32_t release(uint32_t block, bool front, int64_t at) const {
    if (references[block] == 0) {
      fail(status, kv_cache_pool_apply_port_commands, at, block);
      return -1;
    }
    if (references[block] == 1 && !link(block, front)) return -1;
    return int32_t(--references[block]);
  }

  int32_t apply(int64_t i) const {
    const uint32_t opcode = read_once(p.commands + 2 * i), block = read_once(p.commands + 2 * i + 1);
    if (opcode == 0) return allocate();
    if (opcode > 3) {
      fail(status, kv_cache_pool_apply_port_commands, 2 * i, opcode);
      return -1;
    }
    if (block >= blocks) {
      fail(status, kv_cache_pool_apply_port_commands, 2 * i + 1, block);
      return -1;
    }
    return opcode == 1 ? retain(block) : release(block, opcode == 3, 2 * i + 1);
  }
};

}  // namespace

void kv_cache_pool_apply_plan(const kv_cache_pool_apply_params& p, int, KernelPlan& plan) {
  plan.name = "queue";
  plan.phases = p.count > 0;
  plan.tasks[0] = 1;
}

void kv_cache_pool_apply_task(const kv_cache_pool_apply_params& p, const Task& task) {
  const Pool pool(p, *task.status);
  if (p.state[magic_at] == 0 && p.state[blocks_at] == 0) pool.initialise();
  const int wrong = p.state[magic_at] != kMagic ? int(magic_at) : p.state[blocks_at] != pool.blocks ? int(blocks_at) : -1;
  if (wrong >= 0) pool.damaged(p.state + wrong, p.state[wrong]);
  for (int64_t i = 0; i < p.count; i++) p.results[i] = wrong >= 0 ? -1 : pool.apply(i);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
