// attention/decode-anchor: attention/decode, and masses_g = mean over the heads of sum_{t in g} exp(logit_t - lse).
//
// The step is that of decode_chunks.h, bit for bit. On the way each head keeps, for each granule of a chunk, the sum of its
// weights and the logit they are relative to: 8 bytes a granule and head where the keys and values of 16 tokens have 4 KiB
// a head. Joining scales them to the log-sum-exp. Sums over the tokens of a tile go where the tile met them: every fourth
// place (place_rows). The dense step bounds it.
#include "decode_chunks.h"

namespace hotset {
namespace HOTSET_ISA {

static_assert(int(attention_decode_anchor_port_page_table) == int(attention_decode_port_page_table));
static_assert(int(attention_decode_anchor_port_lengths) == int(attention_decode_port_lengths));

namespace {

// Where the weights of a granule's tokens lie in a tile: `count` of them from `first` on, `step` apart.
struct Piece {
  int32_t granule;
  int16_t first, count, step;
};

struct AnchorTile : Tile {
  int32_t granules[kTileTokens];  // of each token, in the order of the tokens
  int pieces;
  Piece piece[kTileTokens];  // at most one a token
};

struct AnchorContext {
  static constexpr bool kMasses = true;
  using TileOf = AnchorTile;
  const attention_decode_anchor_params& anchor;
  const attention_decode_params& p;
  const WholeContext whole;
  char* const scratch;

  AnchorContext(const attention_decode_anchor_params& a, const attention_decode_params& params, char* memory) : anchor(a), p(params), whole(params, memory), scratch(memory) {}

  // The granules of a chunk, one place further for each chunk before it: two chunks may share a granule.
  int64_t places() const { return round_up((p.max_pages * p.page_size + anchor.granularity - 1) / anchor.granularity + kMaxChunks, 16) + 16; }
  int64_t ranges_bytes() const { return round_up(WholeContext::bytes(p), 64); }
  int64_t bytes() const { return ranges_bytes() + p.batch * p.query_heads * places() * 8; }
  // For each place the logit that the sum is relative to; then the sums.
  float* largest(int64_t b, int64_t head) const { return reinterpret_cast<float*>(scratch + ranges_bytes()) + (b * p.query_heads + head) * places() * 2; }
  float* sums(int64_t b, int64_t head) const { return largest(b, head) + places(); }

  Shape shape(int slots) const { return Shape(p, p.query_heads / p.kv_heads, p.max_pages * p.page_size, bytes(), slots); }
  int64_t tokens(int64_t b, int64_t unit) const { return whole.tokens(b, unit); }
  int64_t last(int64_t b, int64_t unit) const { return whole.last(b, unit); }

  struct Cursor {
    WholeContext::Cursor at;
    int64_t granularity;
    void fill(AnchorTile& tile, Status& status) {
      at.first = add_tokens(at.p, at.b, at.kv_head, at.first, at.end, tile, status, [&](int place, int64_t token, int64_t count) {
        int64_t granule = token / granularity, rest = granularity - token % granularity;
        for (int64_t i = 0; i < count; i++) {
          tile.granules[place + i] = int32_t(granule);
          if (--rest == 0) granule++, rest = granularity;
        }
      });
      tile.pieces = 0;
      const MetOrder order(at.p, tile.tokens);
      for (int i = 0; i < tile.tokens;) {
        const int start = i, turn = order.turn(start, tile.tokens);
        while (i < turn && tile.granules[i] == tile.granules[start]) i++;
        tile.piece[tile.pieces++] = {tile.granules[start], int16_t(order.place(start)), int16_t(i - start), int16_t(start < 4 * order.quarter ? 4 : 1)};
      }
    }
  };

  // First granule of a chunk, and the one behind its last.
  Range granules(int64_t b, int64_t chunk, int64_t left) const {
    const int64_t first = whole.ranges[b].first + chunk * chunk_tokens(tokens(b, 0));
    return {int32_t(first / anchor.granularity), int32_t((first + left - 1) / anchor.granularity + 1)};
  }

  Cursor cursor(int64_t b, int64_t unit, int64_t chunk, int64_t left) const {
    const Range chunk_granules = granules(b, chunk, left);
    const int64_t group = p.query_heads / p.kv_heads;
    for (int64_t head = unit * group; head < (unit + 1) * group; head++)
      for (int64_t g = chunk_granules.first + chunk; g < chunk_granules.end + chunk; g++) {
        largest(b, head)[g] = -INFINITY;
        sums(b, head)[g] = 0;
      }
    return {whole.cursor(b, unit, chunk, left), anchor.granularity};
  }

  void add_masses(int64_t b, int64_t head, int64_t chunk, const AnchorTile& tile, const float* weights, float relative) const {
    float* const its_largest = largest(b, head) + chunk;
    float* const its_sum = sums(b, head) + chunk;
    for (int i = 0; i < tile.pieces; i++) {
      const Piece& piece = tile.piece[i];
      const float* const weight = weights + piece.first;
      float sum = 0;
      for (int t = 0; t < piece.count; t++) sum += weight[t * piece.step];
      float& before = its_sum[piece.granule];
      if (its_largest[piece.granule] != relative && before != 0) before *= exp(its_largest[piece.granule] - relative);
      before += sum;
      its_largest[piece.granule] = relative;
    }
  }

  // Adds a head's masses to the mean of its KV head's. The first head of a unit writes what no chunk holds, too.
  void write_masses(int64_t b, int64_t unit, int64_t head, int64_t chunks, float base, float sum) const {
    const int64_t group = p.query_heads / p.kv_heads, all = (p.max_pages * p.page_size + anchor.granularity - 1) / anchor.granularity;
    float* const row = anchor.masses + (b * p.kv_heads + unit) * all;
    if (head == unit * group) memset(row, 0, size_t(all) * sizeof(float));
    if (sum == 0) return;
    const int64_t each = chunk_tokens(tokens(b, unit));
    const f32v relative = splat(base), by = splat(1 / (sum * float(group)));
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      const Range r = granules(b, chunk, least(each, tokens(b, unit) - chunk * each));
      for (int64_t g = r.first; g < r.end; g += kLanes) {
        alignas(64) float mass[kLanes];
        store(mass, mul(mul(exp(sub(load(largest(b, head) + chunk + g), relative)), load(sums(b, head) + chunk + g)), by));
        for (int64_t i = 0; i < kLanes && g + i < r.end; i++) row[g + i] += mass[i];
      }
    }
  }
};

}  // namespace

void attention_decode_anchor_plan(const attention_decode_anchor_params& anchor, int slots, KernelPlan& plan) {
  const attention_decode_params p = dense_params(anchor);
  const Shape shape = AnchorContext(anchor, p, nullptr).shape(slots);
  plan.name = "chunks";
  plan.scratch_bytes = shape.bytes;
  if (p.batch == 0) return;
  plan.phases = 3;
  plan.tasks[0] = 1;
  plan.tasks[1] = p.batch * shape.units * shape.parts;
  plan.tasks[2] = p.batch * shape.units;
}

void attention_decode_anchor_task(const attention_decode_anchor_params& anchor, const Task& task) {
  const attention_decode_params p = dense_params(anchor);
  const AnchorContext context(anchor, p, task.scratch);
  if (task.phase == 0) return context.whole.prepare(*task.status);
  const Decode<AnchorContext> decode(context, task);
  if (task.phase == 1) decode.attend();
  else decode.join();
}

}  // namespace HOTSET_ISA
}  // namespace hotset
