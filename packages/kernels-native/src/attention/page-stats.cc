// attention/page-stats: mean and deviation, or least and largest, of each component over the tokens of a granule.
//
// Only granules that reach beyond `from` are made, each from all its keys: no state but the result, so its bits do not
// depend on how tokens came. Components go a vector at a time down the tokens of a granule (16 rows of 512 bytes are in the
// nearest cache after the first pass), the deviation in a second pass about the mean: f32 does not cancel there. What is not
// finite is gathered as x * 0 on the way. A task is an eighth of what a KV head has to make; the keys' bandwidth bounds it.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kParts = 8;

int64_t parts_of(const attention_page_stats_params& p) { return most(1, least(kParts, p.max_pages * p.page_size / p.granularity / 16)); }

// The keys of a granule: kLanes components of token t from i on. Narrower keys than a vector are put in one with zeros.
template <class T>
struct Keys {
  const T* rows;
  const float* scale;  // of each token, or nullptr
  int64_t dim;

  f32v at(int64_t t, int64_t i) const {
    const T* const row = rows + t * dim + i;
    T buffer[kLanes];
    if (dim < kLanes) {
      memset(buffer, 0, sizeof buffer);
      memcpy(buffer, row, size_t(dim) * sizeof(T));
    }
    const f32v x = load(dim < kLanes ? buffer : row);
    return scale ? mul(x, splat(scale[t])) : x;
  }
};

template <class T>
void describe(const Keys<T>& keys, int64_t count, bool minmax, float* out) {
  const f32v nothing = zero(), share = splat(1 / float(count));
  for (int64_t at = 0; at < keys.dim; at += kLanes) {
    // The last vector ends with the row, over some of the one before.
    const int64_t i = keys.dim < kLanes ? 0 : least(at, keys.dim - kLanes);
    f32v first = keys.at(0, i), second = first, bad = mul(first, nothing);
    for (int64_t t = 1; t < count; t++) {
      const f32v x = keys.at(t, i);
      bad = madd(x, nothing, bad);
      first = minmax ? smaller(x, first) : add(x, first);
      if (minmax) second = larger(x, second);
    }
    if (!minmax) {
      first = mul(first, share);
      second = zero();
      for (int64_t t = 0; t < count; t++) {
        const f32v apart = sub(keys.at(t, i), first);
        second = madd(apart, apart, second);
      }
      second = sqrt(mul(second, share));
    }
    alignas(64) float lanes[2][kLanes];
    store(lanes[0], add(first, bad));
    store(lanes[1], add(second, bad));
    const size_t bytes = size_t(least(kLanes, keys.dim)) * sizeof(float);
    memcpy(out + i, lanes[0], bytes);
    memcpy(out + keys.dim + i, lanes[1], bytes);
  }
}

template <class T>
void describe_at(const attention_page_stats_params& p, int64_t slot, int64_t count) {
  const Keys<T> keys{static_cast<const T*>(p.key_pages) + slot * p.head_dim, sizeof(T) == 1 ? p.key_scale + slot : nullptr, p.head_dim};
  describe(keys, count, p.statistics == attention_page_stats_statistics_minmax, p.page_stats + slot / p.granularity * 2 * p.head_dim);
}

// A number of tokens, or -1 where it is out of range.
int64_t tokens_of(const attention_page_stats_params& p, const int32_t* from, int32_t port, int64_t b, Status& status) {
  const int32_t tokens = int32_t(read_once(reinterpret_cast<const uint32_t*>(from) + b));
  if (tokens >= 0 && tokens <= p.max_pages * p.page_size) return tokens;
  fail(status, port, b, tokens);
  return -1;
}

}  // namespace

void attention_page_stats_plan(const attention_page_stats_params& p, int, KernelPlan& plan) {
  plan.name = "granules";
  plan.phases = p.batch > 0;
  plan.tasks[0] = p.batch * p.kv_heads * parts_of(p);
}

void attention_page_stats_task(const attention_page_stats_params& p, const Task& task) {
  const int64_t parts = parts_of(p), part = task.index % parts, head = task.index / parts % p.kv_heads, b = task.index / parts / p.kv_heads;
  const int64_t length = tokens_of(p, p.lengths, attention_page_stats_port_lengths, b, *task.status);
  const int64_t from = tokens_of(p, p.from, attention_page_stats_port_from, b, *task.status);
  if (length < 0 || from < 0) return;
  const int64_t begin = from / p.granularity, count = most(0, (length + p.granularity - 1) / p.granularity - begin);
  for (int64_t g = begin + count * part / parts; g < begin + count * (part + 1) / parts; g++) {
    const int64_t token = g * p.granularity, entry = b * p.max_pages + token / p.page_size;
    const int32_t page = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.page_table) + entry));
    if (page < 0 || page >= p.pages) {
      fail(*task.status, attention_page_stats_port_page_table, entry, page);
      continue;
    }
    const int64_t slot = (page * p.kv_heads + head) * p.page_size + token % p.page_size, held = least(p.granularity, length - token);
    switch (p.key_pages_dtype) {
      case dtype_f32: describe_at<float>(p, slot, held); break;
      case dtype_f16: describe_at<f16>(p, slot, held); break;
      case dtype_bf16: describe_at<bf16>(p, slot, held); break;
      default: describe_at<int8_t>(p, slot, held);
    }
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
