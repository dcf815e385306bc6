// out = sum_p exp(lse_p - lse) out_p, lse = ln sum_p exp(lse_p), a workgroup a row (lib/join.wgsl).
// The parts' lse are read three times, their values once: a thread has a column and walks over the parts in order, so
// that loads of a workgroup are one stretch. f32 throughout, weights relative to the largest lse.
// Bound by memory; with few rows by the latency of a column's loads.
struct Window {
  // Rows are spread over two dimensions of workgroups.
  rows_across: u32,
}
struct Uniforms {
  params: AttentionMergeParams,
  window: Window,
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
fn merge(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = group.y * uniforms.window.rows_across + group.x;
  if (row >= uniforms.params.rows) {
    return;
  }
  let parts = uniforms.params.parts;
  let columns = uniforms.params.value_dim;
  let sizes = join_sizes(row, parts, 0u, thread);
  for (var first = 0u; first < columns; first += workgroup_threads) {
    let column = first + thread;
    let bits = join_column(row, parts, sizes, column, columns, thread);
    if (column < columns) {
      out[row * columns + column] = bits;
    }
  }
  if (thread == 0u) {
    lse[row] = join_lse(sizes);
  }
}
