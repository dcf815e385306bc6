// attention/prefill: for each query, out = sum_t softmax(softCap(scale q k_t)) v_t over the tokens it sees, in a paged cache.
// Pass `attend`: a workgroup has tile_rows rows (a query head of a token each, of one KV head's group: keys and values are read
// once for all) and goes over tiles of tile_tokens tokens with a running softmax. Logits: a thread has 4 rows x 4 tokens, 16
// products for 2 vectors from workgroup memory; columns are staged stage_words words at a time, keys as they are stored. Weights
// go through workgroup memory; values come straight from memory, four columns a thread for 4 to 16 rows.
// Precision: f32, logits in column order. Tiles begin at multiples of tile_tokens, and one that a query does not see leaves its
// bits alone, so a query's result depends on no other. Windows of pages follow each other: `out` and two words a row hold on.
// 128 threads: 32 rows x 64 tokens and 16 columns, 15124 bytes of the 16384 that every device has; weights are 8192 of them.
// Bound by arithmetic: tile_rows products a loaded value. Few queries after a long past do not fill a large device.
// The passes around it: attention/prefill-rows.wgsl; values: attention/prefill-values.wgsl; the loads: attention/decode-cache.wgsl.
override workgroup_threads: u32 = 128u;
override tile_rows: u32 = 32u;
// tile_rows * tile_tokens = 16 * workgroup_threads.
override tile_tokens: u32 = 64u;
// Of a key, at once.
override stage_words: u32 = 16u;
// Threads side by side on a row of values.
override out_fours: u32 = 32u;

const row_blocks: u32 = tile_rows / 4u;
const token_threads: u32 = tile_tokens / 4u;
const out_blocks: u32 = row_blocks * out_fours / workgroup_threads;
const out_rows: u32 = 4u * out_blocks;
const nowhere: u32 = 0xffffffffu;

@group(0) @binding(6) var<storage, read> queries: array<f32>;
@group(0) @binding(7) var<storage, read> page_table: array<u32>;
@group(0) @binding(8) var<storage, read_write> out: array<u32>;

// One more word a row than is used, so that threads read from different banks.
var<workgroup> key_tile: array<Word, tile_tokens * (stage_words + 1u)>;
// [columns, blocks of 4 rows] and [tokens, blocks of 4 rows], at places turned by the column or token, for the banks' sake.
var<workgroup> query_tile: array<vec4f, stage_words * values_per_word * row_blocks>;
var<workgroup> weights: array<vec4f, tile_tokens * row_blocks>;
// Positions of a tile's tokens among the (page, KV head, token) bound here.
var<workgroup> slots: array<u32, tile_tokens>;
var<workgroup> tops: array<atomic<u32>, tile_rows>;
// What the rows' sums fade by; at the end, the sums of their weights.
var<workgroup> fades: array<vec4f, row_blocks>;
// Whether a token has no weight for a row: its value must not be touched then, as 0 * Inf is NaN.
var<workgroup> tile_excludes: atomic<u32>;
var<workgroup> found: vec4u;

struct Task {
  sequence: u32,
  kv_head: u32,
  // Of the sequence's rows here: token of row 0, what makes a length of its number, first row of the tile, rows of it.
  first_token: u32,
  shift: u32,
  first_row: u32,
  rows: u32,
  // The tokens that any of its rows sees.
  begin: u32,
  end: u32,
  first_column: u32,
  columns_end: u32,
}

@compute @workgroup_size(workgroup_threads)
fn attend(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let units = uniforms.params.kv_heads * uniforms.window.column_parts;
  if (thread == 0u) {
    found = vec4u(work.words[tiles_at]);
  }
  let tiles = workgroupUniformLoad(&found).x;
  // The last tiles first: where a prompt has no past, they see most.
  for (var left = group.x; left < tiles; left += groups.x) {
    if (thread == 0u) {
      found = vec4u(sequence_of(tiles - 1u - left));
    }
    let b = workgroupUniformLoad(&found).x;
    if (thread == 0u) {
      let at = spans_at + span_words * b;
      found = vec4u(work.words[at], work.words[at + 1u], work.words[at + 2u], work.words[at + 3u]);
    }
    let span = workgroupUniformLoad(&found);
    for (var unit = group.y; unit < units; unit += groups.y) {
      attend_tile(task_of(b, span, tiles - 1u - left - span.w, unit), thread);
      workgroupBarrier();
    }
  }
}

// The last sequence with no more tiles before its own.
fn sequence_of(tile: u32) -> u32 {
  var low = 0u;
  var high = uniforms.params.batch;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (work.words[spans_at + span_words * middle + 3u] <= tile) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

fn task_of(b: u32, span: vec4u, tile: u32, unit: u32) -> Task {
  let parts = uniforms.window.column_parts;
  let group_heads = uniforms.window.group_heads;
  let first_row = tile * tile_rows;
  let rows = min(tile_rows, span.y - first_row);
  let column = unit % parts * out_fours * 4u;
  return Task(
    b,
    unit / parts,
    span.x,
    span.z,
    first_row,
    rows,
    begin_of(length_of(span.x + first_row / group_heads, span.z)),
    length_of(span.x + (first_row + rows - 1u) / group_heads, span.z),
    column,
    min(column + out_fours * 4u, uniforms.params.value_dim),
  );
}

// The tokens that a query sees: from begin_of its length up to that.
fn length_of(token: u32, shift: u32) -> u32 {
  return u32(max(0, bitcast<i32>(token + 1u + shift)));
}
fn begin_of(length: u32) -> u32 {
  return select(length - min(uniforms.params.window, length), 0u, uniforms.params.window == 0u);
}

fn token_of(task: Task, row: u32) -> u32 {
  return task.first_token + (task.first_row + row) / uniforms.window.group_heads;
}

// Number of a row among those of the tokens bound here.
fn bound_row(task: Task, row: u32) -> u32 {
  let head = task.kv_head * uniforms.window.group_heads + (task.first_row + row) % uniforms.window.group_heads;
  return (token_of(task, row) - uniforms.window.first_token) * uniforms.params.query_heads + head;
}

fn attend_tile(task: Task, thread: u32) {
  let block = thread / token_threads;
  let lane = thread % token_threads;
  // Rows behind the last see everything, so that none of a tile's tokens is without weight for them.
  var begins = vec4u();
  var ends = vec4u(0xffffffffu);
  for (var i = 0u; i < 4u; i++) {
    if (4u * block + i < task.rows) {
      ends[i] = length_of(token_of(task, 4u * block + i), task.shift);
      begins[i] = begin_of(ends[i]);
    }
  }
  // Sums of weights of this thread's tokens; attended values of its columns.
  var sizes = Lane();
  var attended: array<vec4f, out_rows>;
  var old = Bits();
  if (thread < tile_rows) {
    atomicStore(&tops[thread], 0u);
  }
  if (uniforms.window.resumes != 0u) {
    old = resume(task, &sizes, &attended, thread);
  }
  for (var base = task.begin / tile_tokens * tile_tokens; base < task.end; base += tile_tokens) {
    // Before: the last tile's weights are read.
    workgroupBarrier();
    if (thread < tile_tokens) {
      slots[thread] = slot_of(task, base + thread);
    }
    if (thread == 0u) {
      atomicStore(&tile_excludes, 0u);
    }
    var logits = logits_of_tile(task, thread);
    var keys: array<Bits, 4>;
    var best = Bits();
    for (var i = 0u; i < 4u; i++) {
      let t = lane + i * token_threads;
      var logit = logits[i] * (uniforms.params.scale * key_scale_of(slots[t]));
      if (uniforms.params.soft_cap > 0.0) {
        logit = capped(logit, uniforms.params.soft_cap);
      }
      let seen = vec4<bool>(slots[t] != nowhere) & (vec4u(base + t) >= begins) & (vec4u(base + t) < ends);
      keys[i] = select(Bits(), keys_of(logit), seen);
      best = max(best, keys[i]);
      if (any(keys[i] == Bits())) {
        atomicStore(&tile_excludes, 1u);
      }
    }
    for (var i = 0u; i < 4u; i++) {
      atomicMax(&tops[4u * block + i], best[i]);
    }
    workgroupBarrier();
    let top = tops_of(block);
    // A tile that raises nothing must leave all as it is, and exp(0) need not be 1.
    let fading = select(weights_of(old, top), Lane(1.0), old == top);
    old = top;
    sizes *= fading;
    if (lane == 0u) {
      fades[block] = fading;
    }
    for (var i = 0u; i < 4u; i++) {
      let t = lane + i * token_threads;
      let weight = weights_of(keys[i], top);
      sizes += weight;
      weights[turned(t, block)] = select(weight * value_scale_of(slots[t]), Lane(0.0), keys[i] == Bits());
    }
    workgroupBarrier();
    add_values(task, &attended, min(tile_tokens, task.end - base), thread);
  }
  workgroupBarrier();
  weights[thread] = sizes;
  workgroupBarrier();
  if (thread < row_blocks) {
    var sum = vec4f();
    for (var i = 0u; i < token_threads; i++) {
      sum += weights[thread * token_threads + i];
    }
    fades[thread] = sum;
  }
  workgroupBarrier();
  store(task, &attended, thread);
}

fn turned(place: u32, block: u32) -> u32 {
  return place * row_blocks + (block + place) % row_blocks;
}

fn tops_of(block: u32) -> Bits {
  var all = Bits();
  for (var i = 0u; i < 4u; i++) {
    all[i] = atomicLoad(&tops[4u * block + i]);
  }
  return all;
}

// Where a token lies; nowhere if no row sees it, its page does not exist, or is not bound here.
fn slot_of(task: Task, token: u32) -> u32 {
  if (token < task.begin || token >= task.end) {
    return nowhere;
  }
  return slot_in_page(task.sequence, task.kv_head, token);
}

// Products of this thread's 4 rows with each of its 4 tokens.
fn logits_of_tile(task: Task, thread: u32) -> array<Lane, 4> {
  let block = thread / token_threads;
  let lane = thread % token_threads;
  var logits: array<Lane, 4>;
  let words = (uniforms.params.head_dim + values_per_word - 1u) / values_per_word;
  for (var word = 0u; word < words; word += stage_words) {
    workgroupBarrier();
    stage_keys(word, words, thread);
    stage_rows(task, word * values_per_word, thread);
    workgroupBarrier();
    for (var w = 0u; w < stage_words; w++) {
      var stored: array<Word, 4>;
      for (var i = 0u; i < 4u; i++) {
        stored[i] = key_tile[(lane + i * token_threads) * (stage_words + 1u) + w];
      }
      for (var place = 0u; place < values_per_word; place++) {
        let query = query_tile[turned(w * values_per_word + place, block)];
        for (var i = 0u; i < 4u; i++) {
          logits[i] = fma(query, Lane(value_of(stored[i], place)), logits[i]);
        }
      }
    }
  }
  return logits;
}

// Zeros behind the ends of queries, and for rows behind the last.
fn stage_rows(task: Task, first: u32, thread: u32) {
  let dim = uniforms.params.head_dim;
  const across = stage_words * values_per_word;
  for (var i = thread; i < across * row_blocks; i += workgroup_threads) {
    let column = first + i % across;
    let block = i / across;
    var four = vec4f();
    for (var r = 0u; r < 4u; r++) {
      if (column < dim && 4u * block + r < task.rows) {
        four[r] = queries[bound_row(task, 4u * block + r) * dim + column];
      }
    }
    query_tile[turned(i % across, block)] = four;
  }
}
