// model/embedding: out[t] = table[ids[t]], widened to f32 by its bits. A thread a component, neighbours on neighbours, so
// that loads are one stretch. A table beyond one binding comes in windows of rows: each token's row is written by the
// window that holds it, zeros and the fault by the first one where the id names no row. Bound by memory.
override workgroup_threads: u32 = 128u;

struct Window {
  // Of the rows and of the tokens bound here: the number of the first, and how many.
  first_row: u32,
  rows: u32,
  first_token: u32,
  tokens: u32,
}

struct Uniforms {
  params: ModelEmbeddingParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<Word>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
@group(0) @binding(4) var<storage, read_write> faults: array<atomic<u32>>;

@compute @workgroup_size(workgroup_threads)
fn look_up(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let width = uniforms.params.dim;
  let column = group.x * workgroup_threads + thread;
  if (column >= width) {
    return;
  }
  for (var t = group.y; t < uniforms.window.tokens; t += groups.y) {
    let id = ids[t];
    // Below the first row it wraps around to beyond the last one.
    let row = id - uniforms.window.first_row;
    if (id >= uniforms.params.vocab) {
      if (uniforms.window.first_row == 0u) {
        if (column == 0u) {
          atomicMax(&faults[0], ~(uniforms.window.first_token + t));
        }
        out[t * width + column] = 0u;
      }
    } else if (row < uniforms.window.rows) {
      out[t * width + column] = component_bits(row, column);
    }
  }
}

fn component_bits(row: u32, column: u32) -> u32 {
// #if values_q8_0
  let place = q8_place(row, uniforms.params.dim, column);
  return bitcast<u32>(q8_value(table[place.scale_word], table[place.word], place));
// #else
  let at = row * uniforms.params.dim + column;
  return value_bits(table[at / values_per_word], at % values_per_word);
// #end
}
