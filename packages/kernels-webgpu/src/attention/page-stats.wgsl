// attention/page-stats: mean and deviation, or least and largest, of each component over the tokens of a granule.
// A workgroup takes a granule of a KV head that reaches beyond `from`, and each thread a component, down its tokens in their
// order; workgroups stride over what there is to make, which the host does not know. The deviation is a second pass about the
// mean: f32 does not cancel there. What is not finite is told by its bits. A cache beyond one binding comes in windows of
// pages: a granule is made by the launch that sees its page. Bound by the keys' bandwidth.
override workgroup_threads: u32 = 128u;

struct Window {
  // Of the pages bound here: the number of the first, and how many.
  first_page: u32,
  pages: u32,
  padding_0: u32,
  padding_1: u32,
}
struct Uniforms {
  params: AttentionPageStatsParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> key_pages: array<Word>;
// #if scaled
@group(0) @binding(2) var<storage, read> key_scale: array<u32>;
// #end
@group(0) @binding(3) var<storage, read> page_table: array<u32>;
@group(0) @binding(4) var<storage, read> lengths: array<u32>;
@group(0) @binding(5) var<storage, read> kept: array<u32>;
@group(0) @binding(6) var<storage, read_write> page_stats: array<u32>;
@group(0) @binding(7) var<storage, read_write> notes: array<atomic<u32>>;

fn key_bits(slot: u32, i: u32) -> u32 {
  let value = slot * uniforms.params.head_dim + i;
  let bits = value_bits(key_pages[value / values_per_word], value % values_per_word);
// #if scaled
  let scale = key_scale[slot];
  if (magnitude_of(scale) >= infinity_bits) {
    return nan_bits;
  }
  return bitcast<u32>(bitcast<f32>(scale) * bitcast<f32>(bits));
// #else
  return bits;
// #end
}

fn describe(slot: u32, count: u32, thread: u32) {
  let width = uniforms.params.head_dim;
  let out = slot / uniforms.params.granularity * 2u * width;
  let tokens = f32(count);
  for (var i = thread; i < width; i += workgroup_threads) {
    var finite = true;
    var sum = 0.0;
    var least = 0x1.fffffep+127f;
    var largest = -0x1.fffffep+127f;
    for (var t = 0u; t < count; t++) {
      let bits = key_bits(slot + t, i);
      if (magnitude_of(bits) < infinity_bits) {
        let x = bitcast<f32>(bits);
        sum += x;
        least = min(least, x);
        largest = max(largest, x);
      } else {
        finite = false;
      }
    }
    var first = least;
    var second = largest;
// #if means
    first = sum / tokens;
    var squares = 0.0;
    for (var t = 0u; t < count && finite; t++) {
      let apart = bitcast<f32>(key_bits(slot + t, i)) - first;
      squares += apart * apart;
    }
    second = sqrt(squares / tokens);
// #end
    page_stats[out + i] = select(nan_bits, bitcast<u32>(first), finite);
    page_stats[out + width + i] = select(nan_bits, bitcast<u32>(second), finite);
  }
}

@compute @workgroup_size(workgroup_threads)
fn describe_granules(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let params = uniforms.params;
  let most = params.max_pages * params.page_size;
  for (var row = group.y; row < params.batch * params.kv_heads; row += groups.y) {
    let b = row / params.kv_heads;
    let length = lengths[b];
    let from_token = kept[b];
    if (length > most) {
      atomicMax(&notes[1], ~b);
    }
    if (from_token > most) {
      atomicMax(&notes[2], ~b);
    }
    if (length > most || from_token > most) {
      continue;
    }
    for (var g = from_token / params.granularity + group.x; g * params.granularity < length; g += groups.x) {
      let token = g * params.granularity;
      let entry = b * params.max_pages + token / params.page_size;
      let page = page_table[entry];
      if (page >= params.pages) {
        atomicMax(&notes[0], ~entry);
        continue;
      }
      // Below the first page it wraps around to beyond the last one.
      let place = page - uniforms.window.first_page;
      if (place < uniforms.window.pages) {
        let slot = (place * params.kv_heads + row % params.kv_heads) * params.page_size + token % params.page_size;
        describe(slot, min(params.granularity, length - token), thread);
      }
    }
  }
}
