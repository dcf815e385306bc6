// attention/page-scores: sum_i q_i mean_i + spread |q_i| deviation_i, or sum_i min(q_i, 0) least_i + max(q_i, 0) largest_i.
// Either is one dot product of a granule's statistics with a vector that the query gives: [q, spread |q|] or [min(q, 0),
// max(q, 0)], 128 components of each at a time in workgroup memory. Heads pooled by their sum share the sum of their vectors;
// pooled by the largest, each has its own in turn. Up to 16 threads share a row, so that a load of theirs is one stretch, and
// have 4 rows each. What is not finite is told by its bits. A cache beyond one binding comes in windows of pages: a score is
// written by the launch that sees its page, -Inf by the first one. Bound by bandwidth.
override workgroup_threads: u32 = 128u;
const staged: u32 = 128u;
const lanes: u32 = 16u;
const rows_each: u32 = 4u;
const tile_rows: u32 = workgroup_threads / lanes * rows_each;
struct Uniforms {
  params: AttentionPageScoresParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> queries: array<u32>;
@group(0) @binding(2) var<storage, read> page_stats: array<u32>;
@group(0) @binding(3) var<storage, read> page_table: array<u32>;
@group(0) @binding(4) var<storage, read> lengths: array<u32>;
@group(0) @binding(5) var<storage, read_write> scores: array<u32>;
@group(0) @binding(6) var<storage, read_write> notes: array<atomic<u32>>;

var<workgroup> firsts: array<f32, staged>;
var<workgroup> seconds: array<f32, staged>;
// Not 0 where a query of the heads in turn is not finite.
var<workgroup> bad_queries: atomic<u32>;
var<workgroup> rows: array<u32, tile_rows>;
var<workgroup> partial: array<f32, workgroup_threads>;
var<workgroup> bad_partial: array<u32, workgroup_threads>;

// Where the statistics of a granule lie, as a row of those bound here.
fn row_of(b: u32, head: u32, granule: u32) -> u32 {
  let params = uniforms.params;
  let per_page = params.page_size / params.granularity;
  let length = lengths[b];
  if (length > params.max_pages * params.page_size) {
    atomicMax(&notes[1], ~b);
    return nowhere;
  }
  if (granule >= params.max_pages * per_page || granule * params.granularity >= length) {
    return nowhere;
  }
  let place = place_of(b, granule * params.granularity);
  if (place >= elsewhere) {
    return place;
  }
  return (place * params.kv_heads + head) * per_page + granule % per_page;
}

fn stage(first_head: u32, heads: u32, first_column: u32, thread: u32) {
  let width = uniforms.params.head_dim;
  for (var i = thread; i < staged; i += workgroup_threads) {
    var first = 0.0;
    var second = 0.0;
    for (var h = first_head; h < first_head + heads && first_column + i < width; h++) {
      let bits = queries[h * width + first_column + i];
      let q = bitcast<f32>(bits);
      if (magnitude_of(bits) >= infinity_bits) {
        atomicStore(&bad_queries, 1u);
      } else {
// #if means
        first += q;
        second += uniforms.params.spread * abs(q);
// #else
        first += min(q, 0.0);
        second += max(q, 0.0);
// #end
      }
    }
    firsts[i] = first;
    seconds[i] = second;
  }
}

@compute @workgroup_size(workgroup_threads)
fn score_granules(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let params = uniforms.params;
  let width = params.head_dim;
  let granules = params.max_pages * (params.page_size / params.granularity);
  let tiles = (granules + tile_rows - 1u) / tile_rows;
  let group_heads = params.query_heads / params.kv_heads;
// #if largest
  let vectors = group_heads;
// #else
  let vectors = 1u;
// #end
  let lane = thread % lanes;
  let first_place = thread / lanes * rows_each;
  for (var index = group.y * groups.x + group.x; index < params.batch * params.kv_heads * tiles; index += groups.x * groups.y) {
    let tile = index % tiles;
    let head = index / tiles % params.kv_heads;
    let b = index / tiles / params.kv_heads;
    workgroupBarrier();
    if (thread < tile_rows) {
      rows[thread] = row_of(b, head, tile * tile_rows + thread);
    }
    var pooled: array<u32, rows_each>;
    for (var vector = 0u; vector < vectors; vector++) {
      // With their zeros written out: an array declared in a loop kept its values where shaders run on the CPU.
      var sums = array<f32, rows_each>(0.0, 0.0, 0.0, 0.0);
      var bads = array<u32, rows_each>(0u, 0u, 0u, 0u);
      workgroupBarrier();
      if (thread == 0u) {
        atomicStore(&bad_queries, 0u);
      }
      for (var column = 0u; column < width; column += staged) {
        workgroupBarrier();
        stage(b * params.query_heads + head * group_heads + vector, group_heads / vectors, column, thread);
        workgroupBarrier();
        for (var r = 0u; r < rows_each; r++) {
          let row = rows[first_place + r];
          if (row < elsewhere) {
            let start = row * 2u * width + column;
            for (var i = lane; i < min(staged, width - column); i += lanes) {
              let one = page_stats[start + i];
              let other = page_stats[start + width + i];
              if (max(magnitude_of(one), magnitude_of(other)) < infinity_bits) {
                sums[r] = fma(bitcast<f32>(one), firsts[i], sums[r]);
                sums[r] = fma(bitcast<f32>(other), seconds[i], sums[r]);
              } else {
                bads[r] = 1u;
              }
            }
          }
        }
      }
      for (var r = 0u; r < rows_each; r++) {
        workgroupBarrier();
        partial[thread] = sums[r];
        bad_partial[thread] = bads[r] | atomicLoad(&bad_queries);
        workgroupBarrier();
        var sum = 0.0;
        var bad = 0u;
        for (var i = thread - lane; i < thread - lane + lanes; i++) {
          sum += partial[i];
          bad |= bad_partial[i];
        }
        let bits = select(bitcast<u32>(sum), nan_bits, bad != 0u || !is_finite(sum));
        let nan = magnitude_of(bits) > infinity_bits;
        let kept_nan = vector > 0u && magnitude_of(pooled[r]) > infinity_bits;
        if (vector == 0u || nan || (!kept_nan && order_key(bits) > order_key(pooled[r]))) {
          pooled[r] = bits;
        }
      }
    }
    if (lane == 0u) {
      for (var r = 0u; r < rows_each; r++) {
        let granule = tile * tile_rows + first_place + r;
        let row = rows[first_place + r];
        let at = (b * params.kv_heads + head) * granules + granule;
        if (granule < granules && row < elsewhere) {
          scores[at] = pooled[r];
        } else if (granule < granules && row == nowhere && uniforms.window.first_page == 0u) {
          scores[at] = infinity_bits | sign_bit;
        }
      }
    }
  }
}
