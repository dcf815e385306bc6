// Pass `finish` of attention/decode: joins the states of each query head in their order, its sink among them, and divides.
// A workgroup a row and 32 columns. Bound by the latency of a column's loads.
struct States {
  bad: array<u32, 64>,
  words: array<u32>,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> states: States;
// #if sinks
@group(0) @binding(2) var<storage, read> sinks: array<f32>;
// #end
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
@group(0) @binding(4) var<storage, read_write> lse: array<u32>;

fn state_key(row: u32, state: u32) -> u32 {
  return states.words[2u * (row * uniforms.window.states + state)];
}
fn state_size(row: u32, state: u32) -> f32 {
  return bitcast<f32>(states.words[2u * (row * uniforms.window.states + state) + 1u]);
}
fn state_value(row: u32, state: u32, column: u32) -> f32 {
  let at = (row * uniforms.window.states + state) * uniforms.params.value_dim;
  return bitcast<f32>(states.words[uniforms.window.values_start + at + column]);
}

@compute @workgroup_size(workgroup_threads)
fn finish(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let heads = uniforms.params.query_heads;
  let columns = uniforms.params.value_dim;
  let count = uniforms.window.states;
  let column = group.x * join_columns + thread % join_columns;
  for (var row = group.y; row < uniforms.window.sequences * heads; row += groups.y) {
    var sink = 0u;
// #if sinks
    sink = keys_of(sinks[row % heads]);
// #end
    let sizes = join_sizes(row, count, sink, thread);
    let bits = join_column(row, count, sizes, column, columns, thread);
    let target_row = uniforms.window.first_sequence * heads + row;
    if (thread < join_columns && column < columns) {
      out[target_row * columns + column] = bits;
    }
    if (thread == 0u && group.x == 0u) {
      lse[target_row] = join_lse(sizes);
    }
  }
}
