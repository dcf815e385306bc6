// attention/hash-scores: score_g = -min over the tokens of g of sum_h |hash(q_h) xor hash_t|.
// A workgroup takes a tile of granules of a KV head, whose query hashes it makes in workgroup memory, word by word. Up to 16
// threads share a granule, each with every 16th token; the least distance of theirs is the granule's. Counts are whole numbers: the
// bits are those of the host. Hashes beyond one binding come in windows of pages: a score is written by the launch that
// sees its page, -Inf by the first one. Bound by the hashes' bandwidth.
override workgroup_threads: u32 = 128u;
// Of the hashes of a KV head's queries.
override hash_words: u32 = 16u;
const lanes: u32 = 16u;
const tile_granules: u32 = workgroup_threads / lanes;
struct Uniforms {
  params: AttentionHashScoresParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> queries: array<u32>;
@group(0) @binding(2) var<storage, read> hash_pages: array<u32>;
@group(0) @binding(3) var<storage, read> page_table: array<u32>;
@group(0) @binding(4) var<storage, read> lengths: array<u32>;
@group(0) @binding(5) var<storage, read_write> scores: array<u32>;
@group(0) @binding(6) var<storage, read_write> notes: array<atomic<u32>>;

var<workgroup> hashes: array<u32, hash_words>;
var<workgroup> distances: array<u32, workgroup_threads>;

// The first slot of a granule among the pages bound here.
fn slot_of(b: u32, head: u32, granule: u32, length: u32) -> u32 {
  let params = uniforms.params;
  let token = granule * params.granularity;
  if (token >= length) {
    return nowhere;
  }
  let place = place_of(b, token);
  if (place >= elsewhere) {
    return place;
  }
  return (place * params.kv_heads + head) * params.page_size + token % params.page_size;
}

@compute @workgroup_size(workgroup_threads)
fn score_hashes(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let params = uniforms.params;
  let words = params.bits / 32u;
  let granules = params.max_pages * (params.page_size / params.granularity);
  let tiles = (granules + tile_granules - 1u) / tile_granules;
  let lane = thread % lanes;
  for (var index = group.y * groups.x + group.x; index < params.batch * params.kv_heads * tiles; index += groups.x * groups.y) {
    let head = index / tiles % params.kv_heads;
    let b = index / tiles / params.kv_heads;
    let granule = index % tiles * tile_granules + thread / lanes;
    var length = lengths[b];
    if (length > params.max_pages * params.page_size) {
      atomicMax(&notes[1], ~b);
      length = 0u;
    }
    // The tile before is done with.
    workgroupBarrier();
    for (var i = thread; i < hash_words; i += workgroup_threads) {
      let start = ((b * params.kv_heads + head) * hash_words + i) * 32u;
      var word = 0u;
      for (var bit = 0u; bit < 32u; bit++) {
        // The bits of numbers below 0 follow on each other, from the smallest to -Inf.
        word |= u32(queries[start + bit] - (sign_bit + 1u) < infinity_bits) << bit;
      }
      hashes[i] = word;
    }
    workgroupBarrier();
    let slot = slot_of(b, head, granule, length);
    var nearest = hash_words * 32u;
    if (slot < elsewhere) {
      for (var t = lane; t < min(params.granularity, length - granule * params.granularity); t += lanes) {
        var distance = 0u;
        for (var w = 0u; w < words; w++) {
          let key = hash_pages[(slot + t) * words + w];
          for (var i = w; i < hash_words; i += words) {
            distance += countOneBits(key ^ hashes[i]);
          }
        }
        nearest = min(nearest, distance);
      }
    }
    distances[thread] = nearest;
    workgroupBarrier();
    if (lane == 0u && granule < granules) {
      for (var i = thread + 1u; i < thread + lanes; i++) {
        nearest = min(nearest, distances[i]);
      }
      let at = (b * params.kv_heads + head) * granules + granule;
      if (slot < elsewhere) {
        scores[at] = bitcast<u32>(f32(-i32(nearest)));
      } else if (slot == nowhere && uniforms.window.first_page == 0u) {
        scores[at] = infinity_bits | sign_bit;
      }
    }
  }
}
