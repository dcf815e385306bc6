// logit_t = softCap(scale q k_t) + bias_t, out = sum_t softmax(logit)_t v_t: one query a head, over pages of tokens.
// Pass `attend`: a workgroup has a part of a sequence, a KV head and up to 8 of its query heads, and goes over tiles of
// workgroup_threads tokens with a running softmax. Logits: keys through workgroup memory as they are stored, a thread a
// token, which widens each value once for all heads; sums in column order. Values: straight from memory, four columns a
// thread, lanes of a row side by side. Its state goes to scratch; pass `finish` joins the states in order (lib/join.wgsl).
// The table's and lengths' entries are compared here, where they are loaded; the lowest bad one is noted.
// Precision: f32. Parts depend on a sequence's own length and on the plan's sizes, not on the batch.
// Bound by memory: 2 heads / (bytes of a value) flops a byte; a token's page is looked up once a workgroup.
// lib/lanes.wgsl has the softmax, attention/decode-cache.wgsl the loads, attention/decode-bias.wgsl slopes and masks.
override workgroup_threads: u32 = 128u;
// Of a key, at once: a multiple of 4.
override stage_words: u32 = 8u;
override head_blocks: u32 = 1u;

// A thread has a token of a tile.
const tile_tokens: u32 = workgroup_threads;
const lanes_heads: u32 = head_blocks * lane_width;
// Of a thread, in flight.
const value_loads: u32 = 8u;
const nowhere: u32 = 0xffffffffu;
const page_table_port: u32 = 0u;
const lengths_port: u32 = 1u;

struct States {
  bad: array<atomic<u32>, 64>,
  words: array<u32>,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> queries: array<f32>;
// #if listed
// #else
// #if biased
// #else
@group(0) @binding(6) var<storage, read> page_table: array<u32>;
// #end
@group(0) @binding(7) var<storage, read> lengths: array<u32>;
// #end
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
  let units = params.query_heads / window.group_heads;
  let unit = rest % units;
  let local_sequence = rest / units;
  let first = head_part * lanes_heads;
  let first_head = unit * window.group_heads + first;
  return Task(
    window.first_sequence + local_sequence,
    unit * params.kv_heads / units,
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
// #if listed
  // Positions of the list; what they hold was looked up (attention/decode-sparse.wgsl).
  let length = uniforms.params.k * uniforms.params.granularity;
  let seen = length;
// #else
  var length = lengths[task.sequence];
  if (length > uniforms.params.max_pages * uniforms.params.page_size) {
    if (thread == 0u) {
      note(lengths_port, task.sequence);
    }
    length = 0u;
  }
  let seen = select(min(uniforms.params.window, length), length, uniforms.params.window == 0u);
// #end
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
    let keys = keys_of_tile(task, slot, base + thread, thread);
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
// #if weighed
      weights[thread * head_blocks + j] = select(weight, Lane(0.0), keys[j] == Bits(0u));
// #else
      weights[thread * head_blocks + j] = select(weight * value_scale_of(slot), Lane(0.0), keys[j] == Bits(0u));
// #end
      let fade = all_of(fading);
      for (var i = 0u; i < lane_width; i++) {
        attended[j * lane_width + i] *= fade[i];
      }
    }
    let careful = atomicLoad(&tile_excludes) != 0u;
    workgroupBarrier();
// #if weighed
    if (task.first_column == 0u) {
      add_masses(task, begin, base, count, thread);
    }
    // The next tile may go on with what another thread has written.
    storageBarrier();
// #if scaled
    workgroupBarrier();
    for (var j = 0u; j < head_blocks; j++) {
      let at = thread * head_blocks + j;
      weights[at] = select(weights[at] * value_scale_of(slot), Lane(0.0), keys[j] == Bits(0u));
    }
    workgroupBarrier();
// #end
// #end
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
      var t = first;
// #if unrolled
      // Several loads under way at once: a device with few workgroups waits for memory otherwise.
      for (; t + (value_loads - 1u) * step < count; t += value_loads * step) {
        var vectors: array<ValueVector, value_loads>;
        for (var u = 0u; u < value_loads; u++) {
          vectors[u] = value_pages[slots[t + u * step] * (uniforms.params.value_dim / 4u) + column / 4u];
        }
        for (var u = 0u; u < value_loads; u++) {
          weigh(&attended, widened(vectors[u]), t + u * step);
        }
      }
// #end
      for (; t < count; t += step) {
        weigh(&attended, four_values(slots[t], column), t);
      }
    }
  }
  workgroupBarrier();
  store_sizes(task, &sizes, thread);
  store_values(task, &attended, thread);
}

fn weigh(attended: ptr<function, array<vec4f, lanes_heads>>, value: vec4f, t: u32) {
  for (var j = 0u; j < head_blocks; j++) {
    let weight = all_of(weights[t * head_blocks + j]);
    for (var i = 0u; i < lane_width; i++) {
      let h = j * lane_width + i;
      (*attended)[h] = fma(vec4f(weight[i]), value, (*attended)[h]);
    }
  }
}

// Where a token lies; nowhere if its page does not exist, or is not bound here.
fn slot_of(task: Task, token: u32) -> u32 {
// #if listed
  let params = uniforms.params;
  let head = task.row % params.query_heads;
  let list = task.row / params.query_heads * params.lists + head * params.lists / params.query_heads;
  let position = states.words[uniforms.window.slots_start + list * params.k * params.granularity + token];
  let listed_page = position / params.page_size;
  if (position == nowhere || listed_page - uniforms.window.first_page >= uniforms.window.pages) {
    return nowhere;
  }
  return ((listed_page - uniforms.window.first_page) * params.kv_heads + task.kv_head) * params.page_size + position % params.page_size;
// #else
  return slot_in_page(task.sequence, task.kv_head, token);
// #end
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

// This thread's token, at this position of the context: the keys of its logits.
fn keys_of_tile(task: Task, slot: u32, position: u32, thread: u32) -> array<Bits, head_blocks> {
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
// #if biased
    if (slot != nowhere) {
      keys[j] = biased_keys(task, logit, j, position);
    }
// #else
    keys[j] = select(keys_of(logit), Bits(0u), slot == nowhere);
// #end
  }
  return keys;
}

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
