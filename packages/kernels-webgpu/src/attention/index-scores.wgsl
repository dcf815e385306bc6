// attention/index-scores: score_g = max over the tokens t of g of sum_j w_j relu(q_j . k_t).
// A workgroup takes as many tokens of a sequence as it has threads, a thread each. Keys go through workgroup memory 16 components at
// a time, one row a word further than the last, and the queries of 8 heads beside them, so that a component is read once for
// 8 sums in registers. Tokens are joined by granules by atomics on keys of their order. What is not finite is told by its bits.
// Keys beyond one binding come in windows of pages: a score is written by the launch that sees its page, -Inf by the first
// one. Bound by the multiply-adds.
override workgroup_threads: u32 = 128u;
const head_block: u32 = 8u;
const columns: u32 = 16u;
const pitch: u32 = 17u;
// The key of a score that is not finite: above all others. Of no score: 0.
const not_finite: u32 = 0xffffffffu;

struct Uniforms {
  params: AttentionIndexScoresParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> queries: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<u32>;
@group(0) @binding(3) var<storage, read> index_keys: array<Word>;
@group(0) @binding(4) var<storage, read> index_scale: array<u32>;
@group(0) @binding(5) var<storage, read> page_table: array<u32>;
@group(0) @binding(6) var<storage, read> lengths: array<u32>;
@group(0) @binding(7) var<storage, read_write> scores: array<u32>;
@group(0) @binding(8) var<storage, read_write> notes: array<atomic<u32>>;

var<workgroup> key_tile: array<f32, workgroup_threads * pitch>;
var<workgroup> query_tile: array<f32, 128>;
var<workgroup> slots: array<u32, workgroup_threads>;
var<workgroup> best: array<atomic<u32>, workgroup_threads>;
var<workgroup> bad_queries: atomic<u32>;

fn slot_of(b: u32, token: u32, length: u32) -> u32 {
  let params = uniforms.params;
  if (token >= length) {
    return nowhere;
  }
  let place = place_of(b, token);
  if (place >= elsewhere) {
    return place;
  }
  return place * params.page_size + token % params.page_size;
}

fn stage(b: u32, first_head: u32, column: u32, thread: u32) {
  let params = uniforms.params;
  for (var i = thread; i < workgroup_threads * columns; i += workgroup_threads) {
    let slot = slots[i / columns];
    let at = column + i % columns;
    var key = 0.0;
    if (slot < elsewhere && at < params.index_dim) {
      let value = slot * params.index_dim + at;
      key = value_of(index_keys[value / values_per_word], value % values_per_word);
    }
    key_tile[i / columns * pitch + i % columns] = key;
  }
  for (var i = thread; i < head_block * columns; i += workgroup_threads) {
    let head = first_head + i / columns;
    let at = column + i % columns;
    var query = 0.0;
    if (head < params.heads && at < params.index_dim) {
      let bits = queries[(b * params.heads + head) * params.index_dim + at];
      if (magnitude_of(bits) < infinity_bits) {
        query = bitcast<f32>(bits);
      } else {
        atomicStore(&bad_queries, 1u);
      }
    }
    query_tile[i] = query;
  }
}

@compute @workgroup_size(workgroup_threads)
fn score_tokens(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let params = uniforms.params;
  let granules = params.max_pages * (params.page_size / params.granularity);
  let each = max(1u, workgroup_threads / params.granularity);
  let tiles = (granules + each - 1u) / each;
  for (var index = group.y * groups.x + group.x; index < params.batch * tiles; index += groups.x * groups.y) {
    let b = index / tiles;
    let first = index % tiles * each;
    let end = min(granules, first + each);
    var length = lengths[b];
    if (length > params.max_pages * params.page_size) {
      atomicMax(&notes[1], ~b);
      length = 0u;
    }
    // The tile before is done with.
    workgroupBarrier();
    atomicStore(&best[thread], 0u);
    if (thread == 0u) {
      atomicStore(&bad_queries, 0u);
    }
    // Granules of any sequence have as many rounds, so that barriers are met by all.
    for (var base = 0u; base < each * params.granularity; base += workgroup_threads) {
      let token = first * params.granularity + base + thread;
      var slot = nowhere;
      if (base + thread < (end - first) * params.granularity) {
        slot = slot_of(b, token, length);
      }
      var scale_bits = 0u;
      if (slot < elsewhere) {
        scale_bits = index_scale[slot];
      }
      var finite = magnitude_of(scale_bits) < infinity_bits;
      let scale = select(0.0, bitcast<f32>(scale_bits), finite);
      var score = 0.0;
      workgroupBarrier();
      slots[thread] = slot;
      for (var head = 0u; head < params.heads; head += head_block) {
        var low = vec4f();
        var high = vec4f();
        for (var column = 0u; column < params.index_dim; column += columns) {
          workgroupBarrier();
          stage(b, head, column, thread);
          workgroupBarrier();
          for (var at = 0u; at < columns; at++) {
            let key = key_tile[thread * pitch + at];
            low = fma(vec4f(query_tile[at], query_tile[columns + at], query_tile[2u * columns + at], query_tile[3u * columns + at]), vec4f(key), low);
            high = fma(vec4f(query_tile[4u * columns + at], query_tile[5u * columns + at], query_tile[6u * columns + at], query_tile[7u * columns + at]), vec4f(key), high);
          }
        }
        low = max(low * scale, vec4f());
        high = max(high * scale, vec4f());
        for (var h = 0u; h < min(head_block, params.heads - head); h++) {
          let bits = weights[b * params.heads + head + h];
          if (magnitude_of(bits) < infinity_bits) {
            score = fma(bitcast<f32>(bits), select(low[h % 4u], high[h % 4u], h >= 4u), score);
          } else {
            finite = false;
          }
        }
      }
      if (slot < elsewhere) {
        let sound = finite && is_finite(score) && atomicLoad(&bad_queries) == 0u;
        atomicMax(&best[token / params.granularity - first], select(not_finite, order_key(bitcast<u32>(score)), sound));
      }
    }
    workgroupBarrier();
    for (var granule = first + thread; granule < end; granule += workgroup_threads) {
      let slot = slot_of(b, granule * params.granularity, length);
      if (slot < elsewhere) {
        let key = atomicLoad(&best[granule - first]);
        scores[b * granules + granule] = select(bits_of_key(key), nan_bits, key == not_finite);
      } else if (slot == nowhere && uniforms.window.first_page == 0u) {
        scores[b * granules + granule] = infinity_bits | sign_bit;
      }
    }
  }
}
