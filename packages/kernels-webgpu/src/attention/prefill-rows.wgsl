// Around the tiles of attention/prefill. Pass `begin`: one workgroup compares offsets and lengths where it loads them, and lays
// out the tiles of each sequence, a stretch of sequences a thread; all of them empty the states. Pass `finish`: lse of every
// row, and zeros for rows without weight, whether they see nothing or belong to no sequence.
override workgroup_threads: u32 = 128u;

@group(0) @binding(2) var<storage, read> query_offsets: array<u32>;
@group(0) @binding(3) var<storage, read> lengths: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;
@group(0) @binding(5) var<storage, read_write> lse: array<u32>;

var<workgroup> stretch_tiles: array<u32, workgroup_threads>;
var<workgroup> overlap: atomic<u32>;
var<workgroup> row_keys: array<u32, workgroup_threads>;

@compute @workgroup_size(workgroup_threads)
fn begin(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let rows = uniforms.window.tokens * uniforms.params.query_heads;
  for (var row = group.x * workgroup_threads + thread; row < rows; row += groups.x * workgroup_threads) {
    work.words[uniforms.window.states_out + 2u * row] = 0u;
  }
  if (group.x == 0u) {
    lay_out(thread);
  }
}

fn lay_out(thread: u32) {
  let batch = uniforms.params.batch;
  let each = (batch + workgroup_threads - 1u) / workgroup_threads;
  let first = min(thread * each, batch);
  let end = min(first + each, batch);
  var tiles = 0u;
  for (var b = first; b < end; b++) {
    let rows = span_of(b);
    work.words[spans_at + span_words * b + 3u] = tiles;
    tiles += (rows + uniforms.window.tile_rows - 1u) / uniforms.window.tile_rows;
  }
  stretch_tiles[thread] = tiles;
  workgroupBarrier();
  var before = 0u;
  for (var other = 0u; other < thread; other++) {
    before += stretch_tiles[other];
  }
  for (var b = first; b < end; b++) {
    work.words[spans_at + span_words * b + 3u] += before;
  }
  if (thread == workgroup_threads - 1u) {
    work.words[tiles_at] = before + tiles;
    work.words[overlap_at] = atomicLoad(&overlap);
  }
}

// Notes what is wrong with a sequence, and keeps what of it lies here. Its rows a KV head.
fn span_of(b: u32) -> u32 {
  let params = uniforms.params;
  let window = uniforms.window;
  let start = query_offsets[b];
  let stop = query_offsets[b + 1u];
  let length = lengths[b];
  var good = length <= params.max_pages * params.page_size;
  if (!good) {
    note(lengths_port, b);
  }
  if (start > params.tokens) {
    note(offsets_port, b);
  } else if (stop < start || stop > params.tokens) {
    note(offsets_port, b + 1u);
  }
  if (stop < start || stop > params.tokens) {
    atomicStore(&overlap, 1u);
    good = false;
  }
  let begin_token = max(start, window.first_token);
  let end_token = min(stop, window.first_token + window.tokens);
  let rows = select(0u, (end_token - begin_token) * window.group_heads, good && begin_token < end_token);
  let at = spans_at + span_words * b;
  work.words[at] = begin_token;
  work.words[at + 1u] = rows;
  work.words[at + 2u] = length - stop;
  return rows;
}

@compute @workgroup_size(workgroup_threads)
fn finish(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let rows = uniforms.window.tokens * uniforms.params.query_heads;
  let columns = uniforms.params.value_dim;
  for (var base = group.x * workgroup_threads; base < rows; base += groups.x * workgroup_threads) {
    let row = base + thread;
    var key = 1u;
    if (row < rows) {
      let at = uniforms.window.states_out + 2u * row;
      key = work.words[at];
      lse[row] = lse_of(key, bitcast<f32>(work.words[at + 1u]));
    }
    row_keys[thread] = key;
    workgroupBarrier();
    for (var r = 0u; r < workgroup_threads; r++) {
      if (row_keys[r] == 0u) {
        for (var c = thread; c < columns; c += workgroup_threads) {
          out[(base + r) * columns + c] = 0u;
        }
      }
    }
    workgroupBarrier();
  }
}

fn lse_of(key: u32, sum: f32) -> u32 {
  if (key == 0xffffffffu) {
    return nan_bits;
  }
  return select(bitcast<u32>(bitcast<f32>(bits_of_key(key)) + log(sum)), infinity_bits | sign_bit, key == 0u);
}
