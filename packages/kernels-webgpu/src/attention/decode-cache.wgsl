// The cache as attention/decode and attention/prefill load it: keys of tile_tokens tokens into workgroup memory as they are
// stored, four values at a time into registers.
// Rows that are whole vectors are loaded as such; others by words, whose values are shifted into place.
// #if wide_keys
// #if shader_f16
alias KeyVector = vec4<f16>;
const key_vector_words: u32 = 2u;
fn key_vector_word(vector: KeyVector, i: u32) -> Word {
  return select(vector.xy, vector.zw, i == 1u);
}
// #else
alias KeyVector = vec4<u32>;
const key_vector_words: u32 = 4u;
fn key_vector_word(vector: KeyVector, i: u32) -> Word {
  return vector[i];
}
// #end
// #else
alias KeyVector = Word;
// #end
// #if wide_values
// #if values_f32
alias ValueVector = vec4<u32>;
fn widened(vector: ValueVector) -> vec4f {
  return bitcast<vec4f>(vector);
}
// #end
// #if values_bf16
alias ValueVector = vec2<u32>;
fn widened(vector: ValueVector) -> vec4f {
  return vec4f(value_of(vector.x, 0u), value_of(vector.x, 1u), value_of(vector.y, 0u), value_of(vector.y, 1u));
}
// #end
// #if values_f16
// #if shader_f16
alias ValueVector = vec4<f16>;
fn widened(vector: ValueVector) -> vec4f {
  return vec4f(vector);
}
// #else
alias ValueVector = vec2<u32>;
fn widened(vector: ValueVector) -> vec4f {
  return vec4f(value_of(vector.x, 0u), value_of(vector.x, 1u), value_of(vector.y, 0u), value_of(vector.y, 1u));
}
// #end
// #end
// #if values_i8
alias ValueVector = u32;
fn widened(vector: ValueVector) -> vec4f {
  return vec4f(value_of(vector, 0u), value_of(vector, 1u), value_of(vector, 2u), value_of(vector, 3u));
}
// #end
// #else
alias ValueVector = Word;
// #end

@group(0) @binding(2) var<storage, read> key_pages: array<KeyVector>;
@group(0) @binding(3) var<storage, read> value_pages: array<ValueVector>;
// #if scaled
@group(0) @binding(4) var<storage, read> key_scale: array<f32>;
@group(0) @binding(5) var<storage, read> value_scale: array<f32>;
// #end

// Zeros behind the ends of rows, and for tokens that are nowhere.
fn stage_keys(first: u32, words: u32, thread: u32) {
// #if wide_keys
  let vectors = words / key_vector_words;
  const across = stage_words / key_vector_words;
  // A whole number: sizes of tiles are chosen so.
  const loads = across * tile_tokens / workgroup_threads;
  // All loads first.
  var loaded: array<KeyVector, loads>;
  for (var u = 0u; u < loads; u++) {
    let i = u * workgroup_threads + thread;
    let slot = slots[i / across];
    let at = first / key_vector_words + i % across;
    if (at < vectors && slot != nowhere) {
      loaded[u] = key_pages[slot * vectors + at];
    }
  }
  for (var u = 0u; u < loads; u++) {
    let i = u * workgroup_threads + thread;
    let place = i / across * (stage_words + 1u) + i % across * key_vector_words;
    for (var w = 0u; w < key_vector_words; w++) {
      key_tile[place + w] = key_vector_word(loaded[u], w);
    }
  }
// #else
  let dim = uniforms.params.head_dim;
  for (var i = thread; i < tile_tokens * stage_words; i += workgroup_threads) {
    let row = i / stage_words;
    let at = (first + i % stage_words) * values_per_word;
    var word = Word();
    if (at < dim && slots[row] != nowhere) {
      let value = slots[row] * dim + at;
      let place = value % values_per_word;
      let low = key_pages[value / values_per_word];
      var high = Word();
      if (place != 0u && place + dim - at > values_per_word) {
        high = key_pages[value / values_per_word + 1u];
      }
      word = first_values(joined(low, high, place), dim - at);
    }
    key_tile[row * (stage_words + 1u) + i % stage_words] = word;
  }
// #end
}

// #if prefill
// #else
fn stage_queries(task: Task, first: u32, thread: u32) {
  let dim = uniforms.params.head_dim;
  let start = (task.sequence * uniforms.params.query_heads + task.first_head) * dim;
  for (var i = thread; i < stage_words * values_per_word * head_blocks; i += workgroup_threads) {
    let column = first + i / head_blocks;
    let head = i % head_blocks * lane_width;
    var all = vec4f();
    for (var h = 0u; h < lane_width; h++) {
      if (column < dim && head + h < task.heads) {
        all[h] = queries[start + (head + h) * dim + column];
      }
    }
    query_tile[i] = lane_of(all);
  }
}
// #end

fn four_values(slot: u32, column: u32) -> vec4f {
// #if wide_values
  return widened(value_pages[slot * (uniforms.params.value_dim / 4u) + column / 4u]);
// #else
  var four = vec4f();
  let start = slot * uniforms.params.value_dim;
  for (var i = 0u; i < 4u; i++) {
    if (column + i < uniforms.params.value_dim) {
      let value = start + column + i;
      four[i] = value_of(value_pages[value / values_per_word], value % values_per_word);
    }
  }
  return four;
// #end
}

// #if scaled
fn key_scale_of(slot: u32) -> f32 {
  if (slot == nowhere) {
    return 0.0;
  }
  return key_scale[slot];
}
fn value_scale_of(slot: u32) -> f32 {
  if (slot == nowhere) {
    return 0.0;
  }
  return value_scale[slot];
}
// #else
fn key_scale_of(slot: u32) -> f32 {
  return 1.0;
}
fn value_scale_of(slot: u32) -> f32 {
  return 1.0;
}
// #end

// #if listed
// #else
// Where a token of a sequence lies, for a KV head; nowhere if its page does not exist, or is not bound here.
fn slot_in_page(sequence: u32, kv_head: u32, token: u32) -> u32 {
  let params = uniforms.params;
  let entry = sequence * params.max_pages + token / params.page_size;
// #if biased
  let gathered = (sequence - uniforms.window.first_sequence) * (1u + params.max_pages) + 1u + token / params.page_size;
  let page = states.words[uniforms.window.gathered_start + params.query_heads + gathered];
// #else
  let page = page_table[entry];
// #end
  if (page >= params.pages) {
    note(page_table_port, entry);
    return nowhere;
  }
  let place = page - uniforms.window.first_page;
  if (place >= uniforms.window.pages) {
    return nowhere;
  }
  return (place * params.kv_heads + kv_head) * params.page_size + token % params.page_size;
}
// #end
