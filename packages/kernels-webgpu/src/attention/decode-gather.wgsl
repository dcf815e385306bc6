// Pass `gather` of attention/decode and its siblings, where logits have slopes or masks: slopes, lengths and page tables go to
// scratch, so that eight bindings hold the rest. They are compared where they are used. Bound by the latency of a load.
override workgroup_threads: u32 = 128u;

struct States {
  bad: array<u32, 64>,
  words: array<u32>,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> page_table: array<u32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
// #if slopes
@group(0) @binding(3) var<storage, read> slopes: array<u32>;
// #end
@group(0) @binding(4) var<storage, read_write> states: States;

@compute @workgroup_size(workgroup_threads)
fn gather(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let heads = uniforms.params.query_heads;
  let each = 1u + uniforms.params.max_pages;
  for (var i = group.x * workgroup_threads + thread; i < heads + uniforms.window.sequences * each; i += groups.x * workgroup_threads) {
    var word = 0u;
    if (i >= heads) {
      let sequence = uniforms.window.first_sequence + (i - heads) / each;
      let place = (i - heads) % each;
      if (place == 0u) {
        word = lengths[sequence];
      } else {
        word = page_table[sequence * uniforms.params.max_pages + place - 1u];
      }
    }
// #if slopes
    if (i < heads) {
      word = slopes[i];
    }
// #end
    states.words[uniforms.window.gathered_start + i] = word;
  }
}
