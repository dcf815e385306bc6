// attention/decode-sparse: attention/decode over the tokens of lists of granules, one list for some heads.
//
// First each list is read and checked, once: its granules, how many tokens they have, and where each chunk of them begins.
// Then the tokens are met as those of a whole context are (decode_chunks.h): cut by their number only, so with everything
// listed it is attention/decode bit for bit. The heads of a KV head that share a list go together; heads with lists of
// their own go one by one. Rows are asked for ahead, wherever they lie. Bound by bandwidth, and by latency where granules
// are single tokens.
#include "decode_chunks.h"

namespace hotset {
namespace HOTSET_ISA {

static_assert(int(attention_decode_sparse_port_page_table) == int(attention_decode_port_page_table));
static_assert(int(attention_decode_sparse_port_lengths) == int(attention_decode_port_lengths));

namespace {

// A list that was checked; its granules lie behind it.
struct List {
  int64_t tokens;
  Range seen;
  // The granule of each chunk's first token, as a place in the list, and which of the granule's tokens it is.
  struct {
    int32_t entry, offset;
  } chunks[kMaxChunks];

  int32_t* granules() { return reinterpret_cast<int32_t*>(this + 1); }
  int32_t granule(int64_t entry) const { return reinterpret_cast<const int32_t*>(this + 1)[entry]; }
};

struct ListedContext {
  static constexpr bool kMasses = false;
  using TileOf = Tile;
  const attention_decode_sparse_params& sparse;
  const attention_decode_params& p;
  char* const scratch;

  int64_t list_bytes() const { return round_up(int64_t(sizeof(List)) + sparse.k * int64_t(sizeof(int32_t)), 64); }
  List& list(int64_t b, int64_t at) const { return *reinterpret_cast<List*>(scratch + (b * sparse.lists + at) * list_bytes()); }
  List& list_of(int64_t b, int64_t unit) const { return list(b, sparse.lists == 1 ? 0 : unit); }
  int64_t heads() const { return sparse.lists == p.query_heads ? 1 : p.query_heads / p.kv_heads; }
  Shape shape(int slots) const { return Shape(p, heads(), sparse.k * sparse.granularity, p.batch * sparse.lists * list_bytes(), slots); }
  int64_t tokens(int64_t b, int64_t unit) const { return list_of(b, unit).tokens; }
  int64_t last(int64_t b, int64_t unit) const { return list_of(b, unit).seen.end - 1; }

  // The tokens of a granule that a sequence sees.
  Range tokens_of(const List& l, int32_t granule) const {
    const int64_t first = granule * sparse.granularity;
    return {int32_t(most(first, l.seen.first)), int32_t(least(first + sparse.granularity, l.seen.end))};
  }

  void prepare(int64_t row, Status& status) const {
    const int64_t b = row / sparse.lists;
    List& l = list(b, row % sparse.lists);
    l.seen = range_of(p, b, status);
    l.tokens = 0;
    if (l.seen.end < 0) return;
    const int64_t granules = (l.seen.end + sparse.granularity - 1) / sparse.granularity;
    int count = 0;
    for (int64_t i = row * sparse.k; i < (row + 1) * sparse.k; i++) {
      const int32_t granule = int32_t(read_once(reinterpret_cast<const uint32_t*>(sparse.selected) + i));
      if (granule == -1) continue;
      if (granule < 0 || granule >= granules) {
        fail(status, attention_decode_sparse_port_selected, i, granule);
        continue;
      }
      const Range r = tokens_of(l, granule);
      if (r.first >= r.end) continue;
      l.granules()[count++] = granule;
      l.tokens += r.end - r.first;
    }
    const int64_t each = chunk_tokens(l.tokens);
    int64_t before = 0;
    for (int entry = 0, chunk = 0; entry < count; entry++) {
      const Range r = tokens_of(l, l.granule(entry));
      for (; chunk * each < before + r.end - r.first; chunk++) l.chunks[chunk] = {entry, int32_t(chunk * each - before)};
      before += r.end - r.first;
    }
  }

  struct Cursor {
    const ListedContext& context;
    const List& l;
    int64_t b, kv_head, left;
    int32_t entry, offset;
    void fill(Tile& tile, Status& status) {
      while (left > 0 && tile.tokens < kTileTokens) {
        const Range r = context.tokens_of(l, l.granule(entry));
        const int64_t first = r.first + offset, end = least(r.end, first + left);
        const int64_t stop = add_tokens(context.p, b, kv_head, first, end, tile, status, [](int, int64_t, int64_t) {});
        left -= stop - first;
        offset += int32_t(stop - first);
        if (stop == r.end) entry++, offset = 0;
      }
    }
  };
  Cursor cursor(int64_t b, int64_t unit, int64_t chunk, int64_t left) const {
    const List& l = list_of(b, unit);
    return {*this, l, b, unit * heads() * p.kv_heads / p.query_heads, left, l.chunks[chunk].entry, l.chunks[chunk].offset};
  }
};

}  // namespace

void attention_decode_sparse_plan(const attention_decode_sparse_params& sparse, int slots, KernelPlan& plan) {
  const attention_decode_params p = dense_params(sparse);
  const Shape shape = ListedContext{sparse, p, nullptr}.shape(slots);
  plan.name = "chunks";
  plan.scratch_bytes = shape.bytes;
  if (p.batch == 0) return;
  plan.phases = 3;
  plan.tasks[0] = p.batch * sparse.lists;
  plan.tasks[1] = p.batch * shape.units * shape.parts;
  plan.tasks[2] = p.batch * shape.units;
}

void attention_decode_sparse_task(const attention_decode_sparse_params& sparse, const Task& task) {
  const attention_decode_params p = dense_params(sparse);
  const ListedContext context{sparse, p, task.scratch};
  if (task.phase == 0) return context.prepare(task.index, *task.status);
  const Decode<ListedContext> decode(context, task);
  if (task.phase == 1) decode.attend();
  else decode.join();
}

}  // namespace HOTSET_ISA
}  // namespace hotset
