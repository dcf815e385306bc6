// out = sum_p exp(lse_p - lse) out_p, lse = ln sum_p exp(lse_p), a workgroup a row and 32 columns (lib/join.wgsl).
// Values are read once: a thread has a column and walks over every fourth part, so that loads of 32 threads are one stretch
// and enough of them are under way. f32 throughout, weights relative to the largest lse.
// Bound by memory; with few rows by the latency of a column's loads.
struct Uniforms {
  params: AttentionMergeParams,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> part_out: array<f32>;
@group(0) @binding(2) var<storage, read> part_lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
@group(0) @binding(4) var<storage, read_write> lse: array<u32>;

fn state_key(row: u32, part: u32) -> u32 {
  return keys_of(part_lse[part * uniforms.params.rows + row]);
}
fn state_size(row: u32, part: u32) -> f32 {
  return 1.0;
}
fn state_value(row: u32, part: u32, column: u32) -> f32 {
  return part_out[(part * uniforms.params.rows + row) * uniforms.params.value_dim + column];
}

@compute @workgroup_size(workgroup_threads)
fn merge(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let parts = uniforms.params.parts;
  let columns = uniforms.params.value_dim;
  let column = group.x * join_columns + thread % join_columns;
  for (var row = group.y; row < uniforms.params.rows; row += groups.y) {
    let sizes = join_sizes(row, parts, 0u, thread);
    let bits = join_column(row, parts, sizes, column, columns, thread);
    if (thread < join_columns && column < columns) {
      out[row * columns + column] = bits;
    }
    if (thread == 0u && group.x == 0u) {
      lse[row] = join_lse(sizes);
    }
  }
}
