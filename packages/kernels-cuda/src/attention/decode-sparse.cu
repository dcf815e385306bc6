// attention/decode-sparse: attention/decode over the tokens of lists of granules, one list for some heads.
//
// The positions of a context are those of a list of k granules of `granularity` tokens, cut into chunks as a whole context is
// (decode_chunks.h); each thread looks its token up, list first, then page table. An entry that is none, and what of a
// granule the sequence does not see, is a hole: no row is read, its weight is 0. Heads with lists of their own go alone.
// Bound by memory, where lists are full: a token's entry is one load a block beside its rows.
#include "decode_chunks.h"

namespace hotset {

static_assert(int(attention_decode_sparse_port_page_table) == int(attention_decode_port_page_table));
static_assert(int(attention_decode_sparse_port_lengths) == int(attention_decode_port_lengths));

namespace {

struct ListedContext {
  static constexpr bool kMasses = false;
  const attention_decode_params p;
  const int32_t* selected;
  int64_t granularity, lists, k;

  __host__ __device__ int64_t units() const { return lists == p.query_heads ? p.query_heads : p.kv_heads; }
  __host__ __device__ int64_t most_positions() const { return k * granularity; }
  __device__ int64_t kv_head(int64_t unit) const { return unit * p.kv_heads / units(); }
  __device__ Seen positions(const Seen& seen) const { return {0, seen.valid ? k * granularity : 0, seen.valid}; }
  __device__ int64_t token(int64_t b, int64_t unit, const Seen& seen, int64_t position, Status* status) const {
    const int64_t entry = (b * lists + (lists == 1 ? 0 : unit)) * k + position / granularity;
    const int32_t granule = read_once(selected + entry);
    if (granule == -1) return -1;
    const int64_t token = granule * granularity + position % granularity;
    if (granule < 0 || granule * granularity >= seen.end) {
      fault(status, attention_decode_sparse_port_selected, entry, granule);
      return -1;
    }
    return token < seen.first || token >= seen.end ? -1 : token;
  }
};

ListedContext context_of(const attention_decode_sparse_params& p) {
  return {dense_params(p), p.selected, p.granularity, p.lists, p.k};
}

}  // namespace

void attention_decode_sparse_plan(const attention_decode_sparse_params& p, const Device& device, KernelPlan& plan) { plan_decode(context_of(p), device, plan); }

cudaError_t attention_decode_sparse_run(const attention_decode_sparse_params& p, const Run& run) { return run_decode(context_of(p), run); }

}  // namespace hotset
