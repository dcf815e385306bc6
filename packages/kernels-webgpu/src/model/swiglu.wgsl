// model/swiglu: out = silu(gate) up, component by component. A thread an element, neighbours on neighbours. What decides
// on NaN and infinities of the gate goes by bits: -Inf and NaN give NaN, +Inf itself times up.
// Bound by memory: 12 bytes an element.
override workgroup_threads: u32 = 128u;

struct Uniforms {
  params: ModelSwigluParams,
  // Of the window bound here.
  elements: u32,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> gate: array<u32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(workgroup_threads)
fn multiply(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * groups.x + group.x) * workgroup_threads + thread;
  if (i >= uniforms.elements) {
    return;
  }
  let bits = gate[i];
  if (magnitude_of(bits) > infinity_bits || bits == (infinity_bits | sign_bit)) {
    out[i] = nan_bits;
    return;
  }
  var open = bitcast<f32>(bits);
  if (bits != infinity_bits) {
    open = silu(open);
  }
  out[i] = bitcast<u32>(open * up[i]);
}
