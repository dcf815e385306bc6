// Pass `scale_masses` of attention/decode-anchor: a thread a granule; the mean over the heads of its KV head of the weights kept
// for it, over the sum of all. A state's top and size are joined anew by each thread: few states, in the cache.
override workgroup_threads: u32 = 128u;

struct States {
  bad: array<u32, 64>,
  words: array<u32>,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> states: States;
// #if sinks
@group(0) @binding(2) var<storage, read> sinks: array<f32>;
// #end
@group(0) @binding(3) var<storage, read> lengths: array<u32>;
@group(0) @binding(4) var<storage, read_write> masses: array<u32>;
// The tokens of a tile of pass `attend`, of which a part has a whole number.
override tile_tokens: u32 = 128u;

@compute @workgroup_size(workgroup_threads)
fn scale_masses(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let params = uniforms.params;
  let granules = (params.max_pages * params.page_size + params.granularity - 1u) / params.granularity;
  let all = uniforms.window.sequences * params.kv_heads * granules;
  for (var i = group.x * workgroup_threads + thread; i < all; i += groups.x * workgroup_threads) {
    masses[uniforms.window.first_sequence * params.kv_heads * granules + i] = mass_of(i / granules / params.kv_heads, i / granules % params.kv_heads, i % granules);
  }
}

fn mass_of(local_sequence: u32, kv_head: u32, granule: u32) -> u32 {
  let params = uniforms.params;
  let window = uniforms.window;
  var length = lengths[window.first_sequence + local_sequence];
  if (length > params.max_pages * params.page_size) {
    length = 0u;
  }
  let seen = select(min(params.window, length), length, params.window == 0u);
  let first = length - seen;
  let begun = max(granule * params.granularity, first);
  let end = min((granule + 1u) * params.granularity, length);
  if (begun >= end) {
    return 0u;
  }
  let part = ((seen + tile_tokens - 1u) / tile_tokens + window.parts - 1u) / window.parts * tile_tokens;
  var mass = 0.0;
  for (var h = 0u; h < window.group_heads; h++) {
    let head = kv_head * window.group_heads + h;
    let row = local_sequence * params.query_heads + head;
    var top = 0u;
// #if sinks
    top = keys_of(sinks[head]);
    let sink = top;
// #end
    for (var s = 0u; s < window.states; s++) {
      top = max(top, states.words[2u * (row * window.states + s)]);
    }
    if (top == invalid_key) {
      return nan_bits;
    }
    if (top == 0u) {
      continue;
    }
    var total = 0.0;
// #if sinks
    total = weights_of(sink, top);
// #end
    for (var s = 0u; s < window.states; s++) {
      let at = 2u * (row * window.states + s);
      if (states.words[at] != 0u) {
        total = fma(weights_of(states.words[at], top), bitcast<f32>(states.words[at + 1u]), total);
      }
    }
    var sum = 0.0;
    for (var state = 0u; state < window.states; state += window.parts) {
      for (var p = (begun - first) / part; p <= (end - 1u - first) / part; p++) {
        let begin = first + p * part;
        let place = row * window.row_places + (state + p) * window.state_places + granule - begin / params.granularity;
        let key = states.words[window.masses_start + 2u * place];
        if (key != 0u) {
          sum = fma(weights_of(key, top), bitcast<f32>(states.words[window.masses_start + 2u * place + 1u]), sum);
        }
      }
    }
    mass += sum / (total * f32(window.group_heads));
  }
  return bitcast<u32>(mass);
}
