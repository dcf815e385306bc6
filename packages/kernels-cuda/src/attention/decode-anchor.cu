// attention/decode-anchor: attention/decode, and masses_g = mean over the heads of sum_{t in g} exp(logit_t - lse).
//
// The step is that of decode_chunks.h. The warp that has a head's weights of a tile in shared memory also adds them up by
// granule, a lane a granule, and keeps for each granule of a chunk the sum and the logit it is relative to: 8 bytes in the
// scratch. A third launch scales them to the log-sum-exp, a thread a granule. Bound by memory as the dense step is: with
// granules of 16 tokens a head's 8 bytes stand beside 2 KiB of its share of the keys and values in f16.
#include "decode_chunks.h"

namespace hotset {

static_assert(int(attention_decode_anchor_port_page_table) == int(attention_decode_port_page_table));
static_assert(int(attention_decode_anchor_port_lengths) == int(attention_decode_port_lengths));

namespace {

struct AnchorContext {
  static constexpr bool kMasses = true;
  const attention_decode_params p;
  float* masses;
  int64_t granularity, places;
  // Of each head and place: a sum, and the logit it is relative to.
  float2* kept;

  __host__ __device__ int64_t units() const { return p.kv_heads; }
  __host__ __device__ int64_t most_positions() const { return p.max_pages * p.page_size; }
  __host__ __device__ int64_t granules() const { return ceil_div(most_positions(), granularity); }
  __device__ int64_t kv_head(int64_t unit) const { return unit; }
  __device__ Seen positions(const Seen& seen) const { return seen; }
  __device__ int64_t token(int64_t, int64_t, const Seen&, int64_t position, Status*) const { return position; }
  // The granules of a chunk lie one place further for each chunk before it: two chunks may share a granule.
  __device__ float2* place(int64_t b, int64_t head, int64_t chunk) const { return kept + (b * p.query_heads + head) * places + chunk; }

  // Weights of tokens from `token` on, `step` apart, of a chunk that begins with token `first`; called by a warp.
  __device__ void add_masses(int64_t b, int64_t head, int64_t first, int64_t token, int tokens, int64_t each, const float* weights, int step, float relative, const Seen& seen, int lane) const {
    float2* const out = place(b, head, (first - seen.first) / each);
    const int64_t last = (token + tokens - 1) / granularity;
    for (int64_t g = token / granularity + lane; g <= last; g += 32) {
      const int64_t from = most(g * granularity, token), end = least((g + 1) * granularity, token + tokens);
      float sum = 0;
      for (int64_t t = from; t < end; t++) sum += weights[(t - token) * step];
      // Begun in an earlier tile of this chunk.
      if (token > first && g * granularity < token) {
        const float2 before = out[g];
        if (before.x != 0) sum += before.y == relative ? before.x : before.x * expf(before.y - relative);
      }
      out[g] = make_float2(sum, relative);
    }
  }
};

constexpr int kThreads = 128;

// The largest of a head's logits (0 if there is none above -Inf) and the sum of its weights relative to it, the sink's included.
struct HeadSum {
  float base, sum;
};
__device__ HeadSum head_sum(const float* stats, int64_t chunks, float sink) {
  float largest = fmaxf(sink, -INFINITY);
  for (int64_t c = 0; c < chunks; c++) largest = fmaxf(largest, stats[2 * c]);
  const float base = largest == -INFINITY ? 0 : largest;
  float sum = sink == -INFINITY ? 0 : expf(sink - base);
  for (int64_t c = 0; c < chunks; c++)
    if (stats[2 * c + 1] != 0) sum = fmaf(expf(stats[2 * c] - base), stats[2 * c + 1], sum);
  return {base, sum};
}

// A thread a granule, for the heads of one KV head in their order.
__global__ void __launch_bounds__(kThreads) scale_masses(AnchorContext context, DecodeShape shape, const float* all_stats) {
  const attention_decode_params& p = context.p;
  const int64_t granules = context.granules(), tiles = ceil_div(granules, kThreads);
  const int64_t kv_head = blockIdx.x / tiles % p.kv_heads, b = blockIdx.x / tiles / p.kv_heads;
  const int64_t g = blockIdx.x % tiles * kThreads + threadIdx.x;
  if (g >= granules) return;
  const Seen seen = seen_by(p, read_once(p.lengths + b));
  const int64_t each = shape.chunk_tokens(seen.end - seen.first), chunks = ceil_div(seen.end - seen.first, each);
  const int64_t from = most(g * context.granularity, seen.first), end = least((g + 1) * context.granularity, seen.end);
  const int64_t group = p.query_heads / p.kv_heads;
  float mass = 0;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group && from < end; head++) {
    const HeadSum all = head_sum(all_stats + (b * p.query_heads + head) * shape.most_chunks * 2, chunks, p.sinks ? p.sinks[head] : -INFINITY);
    if (all.sum == 0) continue;
    float sum = 0;
    for (int64_t chunk = (from - seen.first) / each; chunk <= (end - 1 - seen.first) / each; chunk++) {
      const float2 kept = context.place(b, head, chunk)[g];
      if (kept.x != 0) sum += kept.x * expf(kept.y - all.base);
    }
    mass += sum / (all.sum * float(group));
  }
  context.masses[(b * p.kv_heads + kv_head) * granules + g] = mass;
}

int64_t kept_at(const AnchorContext& context, const Device& device) { return round_up(shape_of(context, device).scratch_bytes, 256); }

AnchorContext context_of(const attention_decode_anchor_params& p, const Device& device, char* scratch) {
  AnchorContext context = {dense_params(p), p.masses, p.granularity, 0, nullptr};
  context.places = context.granules() + shape_of(context, device).most_chunks;
  if (scratch) context.kept = reinterpret_cast<float2*>(scratch + kept_at(context, device));
  return context;
}

}  // namespace

void attention_decode_anchor_plan(const attention_decode_anchor_params& p, const Device& device, KernelPlan& plan) {
  const AnchorContext context = context_of(p, device, nullptr);
  plan_decode(context, device, plan);
  plan.scratch_bytes = kept_at(context, device) + p.batch * p.query_heads * context.places * int64_t(sizeof(float2));
  if (p.batch * p.kv_heads * ceil_div(context.granules(), kThreads) > kLargestGrid) plan.refusal = "more granules than a grid has blocks";
}

cudaError_t attention_decode_anchor_run(const attention_decode_anchor_params& p, const Run& run) {
  const AnchorContext context = context_of(p, *run.device, run.scratch);
  const cudaError_t error = run_decode(context, run);
  if (error != cudaSuccess) return error;
  const int64_t blocks = p.batch * p.kv_heads * ceil_div(context.granules(), kThreads);
  return launch(scale_masses, blocks, kThreads, 0, run.stream, context, shape_of(context, *run.device), reinterpret_cast<const float*>(run.scratch));
}

}  // namespace hotset
