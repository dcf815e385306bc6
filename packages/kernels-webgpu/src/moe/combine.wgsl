// moe/combine: out[t] = sum_k weights[t][k] rows[t][k], in the order of k. A thread an element, neighbours on neighbouring
// columns, so that loads are one stretch. Bound by memory: each row is read once.
override workgroup_threads: u32 = 128u;

struct Uniforms {
  params: MoeCombineParams,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> rows: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(workgroup_threads)
fn combine(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let width = uniforms.params.dim;
  let top_k = uniforms.params.top_k;
  let column = group.x * workgroup_threads + thread;
  if (column >= width) {
    return;
  }
  for (var t = group.y; t < uniforms.params.tokens; t += groups.y) {
    var sum = 0.0;
    for (var k = 0u; k < top_k; k++) {
      let weight = weights[t * top_k + k];
      // By bits: a weight of 0 leaves its row out, a NaN does not.
      if (magnitude_of(bitcast<u32>(weight)) != 0u) {
        sum = fma(weight, rows[(t * top_k + k) * width + column], sum);
      }
    }
    out[t * width + column] = sum;
  }
}
