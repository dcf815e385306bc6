// kv-cache/compact: token kept[i] of a head becomes its token i, in place, for ascending i.
//
// A task is one head of one sequence. All that it names is compared before a row moves, so a fault leaves the head as
// it is; numbers are compared again where they are used, as another thread may write them. kept[i] >= i, so rows moved
// in order are read before they are overwritten. Copies only: bound by memory.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

struct Head {
  const kv_cache_compact_params& p;
  Status& status;
  const int64_t b, head, list = b * p.kv_heads + head;

  static int64_t read(const int32_t* from, int64_t at) { return int32_t(read_once(reinterpret_cast<const uint32_t*>(from) + at)); }

  bool bad(int32_t port, int64_t index, int64_t value) const {
    fail(status, port, index, value);
    return false;
  }

  // The row of a token in pages, or -1 where its page does not exist.
  int64_t row_of(int64_t token) const {
    const int64_t entry = b * p.max_pages + token / p.page_size, page = read(p.page_table, entry);
    if (page >= 0 && page < p.pages) return (page * p.kv_heads + head) * p.page_size + token % p.page_size;
    bad(kv_cache_compact_port_page_table, entry, page);
    return -1;
  }

  // Compares everything; with `moves`, also copies the rows.
  bool pass(bool moves) const {
    const int64_t length = read(p.lengths, b);
    if (length < 0 || length > p.max_pages * p.page_size) return bad(kv_cache_compact_port_lengths, b, length);
    const int64_t count = read(p.kept_count, list);
    if (count < 0 || count > p.max_kept) return bad(kv_cache_compact_port_kept_count, list, count);
    int64_t before = -1;
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = list * p.max_kept + i, token = read(p.kept, at);
      if (token <= before || token >= length) return bad(kv_cache_compact_port_kept, at, token);
      before = token;
      const int64_t to = row_of(i);
      const int64_t from = to < 0 ? -1 : row_of(token);
      if (from < 0) return false;
      if (moves && from != to) move(to, from);
    }
    return true;
  }

  void move(int64_t to, int64_t from) const {
    const size_t each = p.key_pages_dtype == dtype_f32 ? 4 : p.key_pages_dtype == dtype_i8 ? 1 : 2;
    copy(p.key_pages, to, from, each * size_t(p.head_dim));
    copy(p.value_pages, to, from, each * size_t(p.value_dim));
    if (p.key_pages_dtype != dtype_i8) return;
    p.key_scale[to] = p.key_scale[from];
    p.value_scale[to] = p.value_scale[from];
  }

  static void copy(void* rows, int64_t to, int64_t from, size_t bytes) {
    memcpy(static_cast<char*>(rows) + size_t(to) * bytes, static_cast<char*>(rows) + size_t(from) * bytes, bytes);
  }
};

}  // namespace

void kv_cache_compact_plan(const kv_cache_compact_params& p, int, KernelPlan& plan) {
  plan.name = "heads";
  plan.tasks[0] = p.batch * p.kv_heads;
  plan.phases = plan.tasks[0] > 0;
}

void kv_cache_compact_task(const kv_cache_compact_params& p, const Task& task) {
  const Head head{p, *task.status, task.index / p.kv_heads, task.index % p.kv_heads};
  if (head.pass(false)) head.pass(true);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
