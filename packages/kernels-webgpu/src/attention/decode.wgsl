// logit_t = softCap(scale q k_t), out = sum_t softmax(logit)_t v_t: one query a head, over pages of tokens.
// Pass `attend`: a workgroup has a part of a sequence, a KV head and up to 8 of its query heads, and goes over tiles of
// workgroup_threads tokens with a running softmax. Logits: keys through workgroup memory as they are stored, a thread a
// token, which widens each value once for all heads; sums in column order. Values: straight from memory, four columns a
// thread, lanes of a row side by side. Its state goes to scratch; pass `finish` joins the states in order (lib/join.wgsl).
// The table's and lengths' entries are compared here, where they are loaded; the lowest bad one is noted.
// Precision: f32. Parts depend on a sequence's own length and on the plan's sizes, not on the batch.
// Bound by memory: 2 heads / (bytes of a value) flops a byte; a token's page is looked up once a workgroup.
override workgroup_threads: u32 = 128u;
// Of a key, at once: a multiple of 4.
override stage_words: u32 = 8u;
override head_blocks: u32 = 1u;

const lanes_heads: u32 = head_blocks * lane_width;
const nowhere: u32 = 0xffffffffu;
const page_table_port: u32 = 0u;
const lengths_port: u32 = 1u;

struct States {
  bad: array<atomic<u32>, 64>,
  words: array<u32>,
}

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

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> queries: array<f32>;
@group(0) @binding(2) var<storage, read> key_pages: array<KeyVector>;
@group(0) @binding(3) var<storage, read> value_pages: array<ValueVector>;
// #if scaled
@group(0) @binding(4) var<storage, read> key_scale: array<f32>;
@group(0) @binding(5) var<storage, read> value_scale: array<f32>;
// #end
@group(0) @binding(6) var<storage, read> page_table: array<u32>;
@group(0) @binding(7) var<storage, read> lengths: array<u32>;
@group(0) @binding(8) var<storage, read_write> states: States;

// One more word a row than is used, so that threads read from different banks.
var<workgroup> key_tile: array<Word, workgroup_threads * (stage_words + 1u)>;
var<workgroup> query_tile: array<Lane, stage_words * values_per_word * head_blocks>;
var<workgroup> weights: array<Lane, workgroup_threads * head_blocks>;
// Positions of a tile's tokens among the (page, KV head, token) bound here.
var<workgroup> slots: array<u32, workgroup_threads>;
var<workgroup> tops: array<atomic<u32>, lanes_heads>;
// Whether a token of the tile has no weight: its value must not be touched, as 0 * Inf is NaN.
var<workgroup> tile_excludes: atomic<u32>;
var<workgroup> sums: array<vec4f, workgroup_threads * head_blocks * max(lane_width / 2u, 2u)>;

struct Task {
  sequence: u32,
  kv_head: u32,
  // Among the query heads of the sequence, and how many there are.
  first_head: u32,
  heads: u32,
  // Among the rows of the states: of the first head, and the place of a state in it.
  row: u32,
  state: u32,
  first_column: u32,
  columns_end: u32,
}

fn task_of(group: vec3u) -> Task {
  let params = uniforms.params;
  let window = uniforms.window;
  var rest = group.y;
  let column_part = rest % window.column_parts;
  rest /= window.column_parts;
  let head_part = rest % window.head_parts;
  rest /= window.head_parts;
  let kv_head = rest % params.kv_heads;
  let local_sequence = rest / params.kv_heads;
  let first = head_part * lanes_heads;
  let first_head = kv_head * window.group_heads + first;
  return Task(
    window.first_sequence + local_sequence,
    kv_head,
    first_head,
    min(lanes_heads, window.group_heads - first),
    local_sequence * params.query_heads + first_head,
    window.first_state + group.x,
    column_part * window.fours * 4u,
    min((column_part + 1u) * window.fours * 4u, params.value_dim),
  );
}

@compute @workgroup_size(workgroup_threads)
fn attend(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let task = task_of(group);
  var length = lengths[task.sequence];
  if (length > uniforms.params.max_pages * uniforms.params.page_size) {
    if (thread == 0u) {
      note(lengths_port, task.sequence);
    }
    length = 0u;
  }
  let seen = select(min(uniforms.params.window, length), length, uniforms.params.window == 0u);
  let tiles = (seen + workgroup_threads - 1u) / workgroup_threads;
  let part = (tiles + uniforms.window.parts - 1u) / uniforms.window.parts * workgroup_threads;
  let begin = length - seen + group.x * part;
  let end = min(begin + part, length);

  if (thread < lanes_heads) {
    atomicStore(&tops[thread], 0u);
  }
  // Sums of weights of this thread's tokens; attended values of its columns.
  var sizes: array<Lane, head_blocks>;
  var attended: array<vec4f, lanes_heads>;
  var old: array<Bits, head_blocks>;
  for (var base = begin; base < end; base += workgroup_threads) {
    let count = min(workgroup_threads, end - base);
    var slot = nowhere;
    if (thread < count) {
      slot = slot_of(task, base + thread);
    }
    // Before: the last tile's weights are read.
    workgroupBarrier();
    slots[thread] = slot;
    if (thread == 0u) {
      atomicStore(&tile_excludes, 0u);
    }
    let keys = keys_of_tile(task, slot, thread);
    for (var j = 0u; j < head_blocks; j++) {
      if (thread < count && has_zero(keys[j])) {
        atomicStore(&tile_excludes, 1u);
      }
// #if subgroups
      // One atomic a subgroup instead of one a thread.
      let all = all_bits_of(subgroupMax(keys[j]));
      let raises = subgroupElect();
// #else
      let all = all_bits_of(keys[j]);
      let raises = true;
// #end
      for (var i = 0u; raises && i < lane_width; i++) {
        atomicMax(&tops[j * lane_width + i], all[i]);
      }
    }
    workgroupBarrier();
    for (var j = 0u; j < head_blocks; j++) {
      var all = vec4u();
      for (var i = 0u; i < lane_width; i++) {
        all[i] = atomicLoad(&tops[j * lane_width + i]);
      }
      let top = bits_of(all);
      let fading = weights_of(old[j], top);
      let weight = weights_of(keys[j], top);
      old[j] = top;
      sizes[j] = fma(sizes[j], fading, weight);
      weights[thread * head_blocks + j] = select(weight * value_scale_of(slot), Lane(0.0), keys[j] == Bits(0u));
      let fade = all_of(fading);
      for (var i = 0u; i < lane_width; i++) {
        attended[j * lane_width + i] *= fade[i];
      }
    }
    let careful = atomicLoad(&tile_excludes) != 0u;
    workgroupBarrier();
    let fours = uniforms.window.fours;
    let column = task.first_column + 4u * (thread % fours);
    let step = workgroup_threads / fours;
    let mine = thread / fours < step && column < task.columns_end;
    let first = select(count, thread / fours, mine);
    if (careful) {
      for (var t = first; t < count; t += step) {
        if (slots[t] != nowhere) {
          let value = four_values(slots[t], column);
          for (var j = 0u; j < head_blocks; j++) {
            let weight = all_of(weights[t * head_blocks + j]);
            for (var i = 0u; i < lane_width; i++) {
              let h = j * lane_width + i;
              attended[h] = select(fma(vec4f(weight[i]), value, attended[h]), attended[h], weight[i] == 0.0);
            }
          }
        }
      }
    } else {
      for (var t = first; t < count; t += step) {
        let value = four_values(slots[t], column);
        for (var j = 0u; j < head_blocks; j++) {
          let weight = all_of(weights[t * head_blocks + j]);
          for (var i = 0u; i < lane_width; i++) {
            let h = j * lane_width + i;
            attended[h] = fma(vec4f(weight[i]), value, attended[h]);
          }
        }
      }
    }
  }
  workgroupBarrier();
  store_sizes(task, &sizes, thread);
  store_values(task, &attended, thread);
}

// Where a token lies; nowhere if its page does not exist, or is not bound here.
fn slot_of(task: Task, token: u32) -> u32 {
  let params = uniforms.params;
  let entry = task.sequence * params.max_pages + token / params.page_size;
  let page = page_table[entry];
  if (page >= params.pages) {
    note(page_table_port, entry);
    return nowhere;
  }
  let place = page - uniforms.window.first_page;
  if (place >= uniforms.window.pages) {
    return nowhere;
  }
  return (place * params.kv_heads + task.kv_head) * params.page_size + token % params.page_size;
}

fn has_zero(keys: Bits) -> bool {
  let all = all_bits_of(keys);
  var none = false;
  for (var i = 0u; i < lane_width; i++) {
    none = none || all[i] == 0u;
  }
  return none;
}

fn note(port: u32, index: u32) {
  atomicMax(&states.bad[port], ~index);
}

// This thread's token: the keys of its logits.
fn keys_of_tile(task: Task, slot: u32, thread: u32) -> array<Bits, head_blocks> {
  var logits: array<Lane, head_blocks>;
  let words = (uniforms.params.head_dim + values_per_word - 1u) / values_per_word;
  for (var word = 0u; word < words; word += stage_words) {
    workgroupBarrier();
    stage_keys(word, words, thread);
    stage_queries(task, word * values_per_word, thread);
    workgroupBarrier();
    for (var w = 0u; w < stage_words; w++) {
      let stored = key_tile[thread * (stage_words + 1u) + w];
      for (var place = 0u; place < values_per_word; place++) {
        let key = value_of(stored, place);
        for (var j = 0u; j < head_blocks; j++) {
          logits[j] = fma(query_tile[(w * values_per_word + place) * head_blocks + j], Lane(key), logits[j]);
        }
      }
    }
  }
  let scale = uniforms.params.scale * key_scale_of(slot);
  var keys: array<Bits, head_blocks>;
  for (var j = 0u; j < head_blocks; j++) {
    var logit = logits[j] * scale;
    if (uniforms.params.soft_cap > 0.0) {
      logit = capped(logit, uniforms.params.soft_cap);
    }
    keys[j] = select(keys_of(logit), Bits(0u), slot == nowhere);
  }
  return keys;
}

// Zeros behind the ends of rows, and for tokens that are nowhere.
fn stage_keys(first: u32, words: u32, thread: u32) {
// #if wide_keys
  let vectors = words / key_vector_words;
  let across = stage_words / key_vector_words;
  for (var i = thread; i < workgroup_threads * across; i += workgroup_threads) {
    let row = i / across;
    let at = first / key_vector_words + i % across;
    var vector = KeyVector();
    if (at < vectors && slots[row] != nowhere) {
      vector = key_pages[slots[row] * vectors + at];
    }
    for (var w = 0u; w < key_vector_words; w++) {
      key_tile[row * (stage_words + 1u) + (i % across) * key_vector_words + w] = key_vector_word(vector, w);
    }
  }
// #else
  let dim = uniforms.params.head_dim;
  for (var i = thread; i < workgroup_threads * stage_words; i += workgroup_threads) {
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

// Key and sum of weights of each head: sums of eight threads, then of those.
fn store_sizes(task: Task, sizes: ptr<function, array<Lane, head_blocks>>, thread: u32) {
  for (var j = 0u; j < head_blocks; j++) {
    sums[thread * head_blocks + j] = all_of((*sizes)[j]);
  }
  workgroupBarrier();
  let eights = workgroup_threads / 8u;
  let behind = workgroup_threads * head_blocks;
  if (thread < eights * head_blocks) {
    let j = thread % head_blocks;
    var sum = vec4f();
    for (var i = 0u; i < 8u; i++) {
      sum += sums[(thread / head_blocks * 8u + i) * head_blocks + j];
    }
    sums[behind + thread] = sum;
  }
  workgroupBarrier();
  if (thread < task.heads && task.first_column == 0u) {
    var sum = 0.0;
    for (var i = 0u; i < eights; i++) {
      sum += sums[behind + i * head_blocks + thread / lane_width][thread % lane_width];
    }
    let at = 2u * ((task.row + thread) * uniforms.window.states + task.state);
    states.words[at] = atomicLoad(&tops[thread]);
    states.words[at + 1u] = bitcast<u32>(sum);
  }
  workgroupBarrier();
}

// Threads that have the same columns: the farther half hands over until one has the sum.
fn store_values(task: Task, attended: ptr<function, array<vec4f, lanes_heads>>, thread: u32) {
  let fours = uniforms.window.fours;
  let place = thread / fours;
  for (var left = workgroup_threads / fours; left > 1u; left = (left + 1u) / 2u) {
    let half = (left + 1u) / 2u;
    if (place >= half && place < left) {
      for (var h = 0u; h < lanes_heads; h++) {
        sums[(thread - half * fours) * lanes_heads + h] = (*attended)[h];
      }
    }
    workgroupBarrier();
    if (place + half < left) {
      for (var h = 0u; h < lanes_heads; h++) {
        (*attended)[h] += sums[thread * lanes_heads + h];
      }
    }
    workgroupBarrier();
  }
  let column = task.first_column + 4u * thread;
  if (place > 0u || column >= task.columns_end) {
    return;
  }
  for (var h = 0u; h < lanes_heads; h++) {
    if (h < task.heads) {
      let row = (task.row + h) * uniforms.window.states + task.state;
      let at = uniforms.window.values_start + row * uniforms.params.value_dim + column;
      for (var i = 0u; i < 4u; i++) {
        if (column + i < task.columns_end) {
          states.words[at + i] = bitcast<u32>((*attended)[h][i]);
        }
      }
    }
  }
}
