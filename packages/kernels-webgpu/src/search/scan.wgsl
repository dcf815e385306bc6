// score = sum q x (ip), sum q x / (|q| |x|) (cos), sum (q - x)^2 (l2); the k best rows of each query, scores never stored.
// Pass `score`: a workgroup takes a chunk of rows and query_tile queries; each thread has one row of a tile and sums in
// column order, so that a query's scores do not depend on its neighbours. Rows go through workgroup memory: loads are
// coalesced whatever the dtype and pitch. Passes `merge` and `finish` join the lists of the chunks.
// Precision: f32 sums. Where that is not safe (overflow, a norm that is tiny, huge or 0, subnormals, which may be taken for
// 0 though the other factor is 1e30), the row is scored again by `careful_bits`, which keeps exponents apart.
// Bound by memory for few queries; for many by workgroup-memory reads: query_tile + 1 for 2 query_tile flops a thread.
const max_query_tile: u32 = 8u;
const ip: u32 = 1u;
const cos: u32 = 0u;
const l2: u32 = 2u;
override metric: u32 = 0u;
// Columns that are staged at once.
override column_tile: u32 = 8u;

struct Window {
  // Of the rows bound here: the number of the first, and how many.
  first_row: u32,
  rows: u32,
  // Rows of one workgroup.
  chunk_rows: u32,
  queries: u32,
  // Where the lists of this window's chunks start among the lists of a query.
  first_list: u32,
  lists: u32,
  // For merging: lists of a query now, and how many a workgroup joins.
  source_lists: u32,
  fan_in: u32,
  // 1 where every row starts on a whole word.
  whole_words: u32,
}

struct Uniforms {
  params: SearchScanParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> queries: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<Word>;
// #if scaled
@group(0) @binding(3) var<storage, read> row_scale: array<f32>;
// #end
// #if filtered
@group(0) @binding(4) var<storage, read> row_filter: array<u32>;
// #end
// Key and row of each entry: [queries, lists, k].
@group(0) @binding(5) var<storage, read_write> lists_out: array<vec2u>;
@group(0) @binding(6) var<storage, read> lists_in: array<vec2u>;
@group(0) @binding(7) var<storage, read_write> ids: array<i32>;
@group(0) @binding(8) var<storage, read_write> scores: array<u32>;
@group(0) @binding(9) var<storage, read_write> found: array<u32>;

var<workgroup> row_tile: array<f32, workgroup_threads * (column_tile + 1u)>;
var<workgroup> query_values: array<f32, top_lists * column_tile>;
var<workgroup> partials: array<u32, workgroup_threads>;
// #if subnormals
// Rows of the tile with a subnormal component.
var<workgroup> row_tiny: array<atomic<u32>, workgroup_threads>;
// #end

// How the scores of a query may be computed.
const ordinary: u32 = 0u;
const careful: u32 = 1u;
const never: u32 = 2u;
var<workgroup> query_states: array<u32, top_lists>;
// For cos: what a query is multiplied by as it is staged, a power of two, and 1 / its length then.
var<workgroup> query_scales: array<f32, top_lists>;
var<workgroup> query_inverses: array<f32, top_lists>;
// The largest component of a scaled query. Rows of length 2^-50 to 2^48 can then neither overflow nor fade.
const query_exponent: i32 = 50;

@compute @workgroup_size(workgroup_threads)
fn score(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let k = uniforms.params.k;
  let first_query = group.y * top_lists;
  let first = group.x * uniforms.window.chunk_rows;
  let end = min(first + uniforms.window.chunk_rows, uniforms.window.rows);
  measure_queries(first_query, thread);
  top_start(thread);
  for (var base = first; base < end; base += workgroup_threads) {
    score_tile(base, end, first_query, thread);
    top_make_room(k, thread);
  }
  top_finish(k, thread);
  for (var j = 0u; j < top_lists; j++) {
    let query = first_query + j;
    let start = (query * uniforms.window.lists + uniforms.window.first_list + group.x) * k;
    for (var i = thread; query < uniforms.window.queries && i < k; i += workgroup_threads) {
      lists_out[start + i] = top_entry(j, i);
    }
  }
}

// Finds NaN and Inf in each query, and for cos its scale and length. As many threads work on each query.
fn measure_queries(first_query: u32, thread: u32) {
  let dim = uniforms.params.dim;
  let lanes = workgroup_threads / top_lists;
  let j = thread / lanes;
  let lane = thread % lanes;
  let start = (first_query + j) * dim;
  let there = first_query + j < uniforms.window.queries;
  var largest = 0u;
  var tiny = 0u;
  for (var c = lane; there && c < dim; c += lanes) {
    largest = max(largest, magnitude_of(queries[start + c]));
    tiny |= select(0u, sign_bit, is_subnormal(queries[start + c]));
  }
  partials[thread] = largest | tiny;
  workgroupBarrier();
  if (lane == 0u) {
    for (var i = 1u; i < lanes; i++) {
      largest = max(largest, magnitude_of(partials[thread + i]));
      tiny |= partials[thread + i] & sign_bit;
    }
    let exponent = split(largest).exponent;
    var state = ordinary;
    if (largest == infinity_bits || (metric != l2 && tiny != 0u) || (metric == cos && largest > 0u && exponent < -60)) {
      state = careful;
    }
    if (!there || largest > infinity_bits || (metric == cos && largest == infinity_bits)) {
      state = never;
    }
    query_states[j] = state;
    query_scales[j] = select(1.0, power_of_two(query_exponent - exponent), metric == cos && state == ordinary && largest > 0u);
  }
  workgroupBarrier();
  if (metric != cos) {
    return;
  }
  var square = 0.0;
  for (var c = lane; there && c < dim; c += lanes) {
    let value = bitcast<f32>(queries[start + c]) * query_scales[j];
    square = fma(value, value, square);
  }
  partials[thread] = bitcast<u32>(square);
  workgroupBarrier();
  if (lane == 0u) {
    for (var i = 1u; i < lanes; i++) {
      square += bitcast<f32>(partials[thread + i]);
    }
    query_inverses[j] = select(0.0, inverse_root(square), square > 0.0);
  }
  workgroupBarrier();
}

fn score_tile(base: u32, end: u32, first_query: u32, thread: u32) {
  let dim = uniforms.params.dim;
  let row = base + thread;
  let there = row < end;
  let scale = scale_of(min(row, end - 1u));
  var sums: array<f32, max_query_tile>;
  var square = 0.0;
  for (var j = 0u; j < top_lists; j++) {
    sums[j] = 0.0;
  }
// #if subnormals
  // Staging marks rows after the next barrier.
  atomicStore(&row_tiny[thread], 0u);
// #end
  for (var column = 0u; column < dim; column += column_tile) {
    workgroupBarrier();
    stage_rows(base, end, column, thread);
    stage_queries(first_query, column, thread);
    workgroupBarrier();
    for (var c = 0u; c < column_tile; c++) {
      let x = row_tile[thread * (column_tile + 1u) + c];
      if (metric == cos) {
        square = fma(x, x, square);
      }
      for (var j = 0u; j < top_lists; j++) {
        let q = query_values[j * column_tile + c];
        if (metric == l2) {
          let apart = q - x * scale;
          sums[j] = fma(apart, apart, sums[j]);
        } else {
          sums[j] = fma(q, x, sums[j]);
        }
      }
    }
  }
  var tiny = false;
// #if subnormals
  tiny = metric != l2 && atomicLoad(&row_tiny[thread]) != 0u;
// #end
  let open = there && passes(min(row, end - 1u));
  for (var j = 0u; j < top_lists; j++) {
    var key = 0u;
    if (open && query_states[j] != never) {
      key = key_of(score_bits(sums[j], square, j, first_query + j, row, scale, tiny));
    }
    top_append(j, key, uniforms.window.first_row + row);
  }
}

// Zeros where the tile is beyond the rows or the columns: they add nothing.
fn stage_rows(base: u32, end: u32, column: u32, thread: u32) {
  let dim = uniforms.params.dim;
  let loads = select(1u, values_per_word, uniforms.window.whole_words == 1u);
  for (var i = thread * loads; i < workgroup_threads * column_tile; i += workgroup_threads * loads) {
    let r = i / column_tile;
    let c = i % column_tile;
    let element = (base + r) * uniforms.params.rows_pitch + column + c;
    let there = base + r < end && column + c < dim;
    var word = Word();
    if (there) {
      word = rows[element / values_per_word];
    }
// #if subnormals
    for (var v = 0u; v < loads; v++) {
      if (is_subnormal(value_bits(word, (element + v) % values_per_word))) {
        atomicStore(&row_tiny[r], 1u);
      }
    }
// #end
    for (var v = 0u; v < loads; v++) {
      let value = value_of(word, (element + v) % values_per_word);
      row_tile[r * (column_tile + 1u) + c + v] = select(0.0, value, there && column + c + v < dim);
    }
  }
}

fn stage_queries(first_query: u32, column: u32, thread: u32) {
  let dim = uniforms.params.dim;
  for (var i = thread; i < top_lists * column_tile; i += workgroup_threads) {
    let j = i / column_tile;
    let c = column + i % column_tile;
    var value = 0.0;
    if (c < dim && first_query + j < uniforms.window.queries) {
      value = bitcast<f32>(queries[(first_query + j) * dim + c]) * query_scales[j];
    }
    query_values[i] = value;
  }
}

// The bits of a row's score: from the sums where they can be trusted.
fn score_bits(sum: f32, square: f32, j: u32, query: u32, row: u32, scale: f32, tiny: bool) -> u32 {
  var trusted = is_finite(sum) && query_states[j] == ordinary && !tiny;
  var value = sum;
  if (metric == cos) {
    let size = bitcast<u32>(square);
    // 2^-100 to 2^96, as bits of a positive float; a scale's size cancels, its sign does not.
    trusted = trusted && size > 0x0d800000u && size < 0x6f800000u && is_finite(scale) && magnitude_of(bitcast<u32>(scale)) > 0u;
    value = sum * query_inverses[j] * inverse_root(square) * select(1.0, -1.0, (bitcast<u32>(scale) & sign_bit) != 0u);
  } else if (metric == ip) {
    value = sum * scale;
    // A subnormal scale would be flushed although the product is not that small.
    trusted = trusted && is_finite(value) && (magnitude_of(bitcast<u32>(scale)) - 1u) >= 0x7fffffu;
  }
  if (trusted) {
    return bitcast<u32>(value);
  }
  return careful_bits(query, row, scale);
}

// Larger is better, whatever the metric; 0 for a score that is NaN.
fn key_of(bits: u32) -> u32 {
  if (magnitude_of(bits) > infinity_bits) {
    return 0u;
  }
  return order_key(select(bits, bits ^ sign_bit, metric == l2));
}

// The same score with the exponents kept apart, and NaN and Inf told by their bits. Reads its row again, twice.
fn careful_bits(query: u32, row: u32, scale: f32) -> u32 {
  let dim = uniforms.params.dim;
  let factor = split(bitcast<u32>(scale));
  var plus = false;
  var minus = false;
  var invalid = false;
  var top = zero_exponent;
  var top_x = zero_exponent;
  var top_q = zero_exponent;
  for (var c = 0u; c < dim; c++) {
    let q = split(queries[query * dim + c]);
    let x = product(row_value(row, c), factor);
    let term = product(q, x);
    let infinite = term.exponent == infinity_exponent;
    plus = plus || (infinite && term.mantissa > 0.0);
    minus = minus || (infinite && term.mantissa < 0.0);
    invalid = invalid || term.exponent == nan_exponent;
    top = max(top, term.exponent);
    top_x = max(top_x, x.exponent);
    top_q = max(top_q, q.exponent);
    if (metric == l2) {
      let both = q.exponent == infinity_exponent && x.exponent == infinity_exponent;
      invalid = q.exponent == nan_exponent || x.exponent == nan_exponent || (both && q.mantissa * x.mantissa > 0.0);
      if (invalid) {
        return nan_bits;
      }
    }
  }
  if (metric == l2) {
    // Only an infinite component or an infinite sum leads here.
    return infinity_bits;
  }
  if (invalid || (plus && minus)) {
    return nan_bits;
  }
  if (metric == cos && max(top_x, top_q) >= infinity_exponent) {
    return nan_bits;
  }
  if (plus || minus) {
    return select(infinity_bits, infinity_bits | sign_bit, minus);
  }
  var sum = 0.0;
  var square_x = 0.0;
  var square_q = 0.0;
  for (var c = 0u; c < dim; c++) {
    let q = split(queries[query * dim + c]);
    let x = product(row_value(row, c), factor);
    let term = product(q, x);
    sum = fma(term.mantissa, power_of_two(term.exponent - top), sum);
    let small_x = x.mantissa * power_of_two(x.exponent - top_x);
    let small_q = q.mantissa * power_of_two(q.exponent - top_q);
    square_x = fma(small_x, small_x, square_x);
    square_q = fma(small_q, small_q, square_q);
  }
  if (metric == ip) {
    return scaled_bits(sum, top);
  }
  if (square_x == 0.0 || square_q == 0.0) {
    return 0u;
  }
  return bitcast<u32>(sum * power_of_two(top - top_x - top_q) * inverse_root(square_x) * inverse_root(square_q));
}

fn row_value(row: u32, column: u32) -> Split {
  let element = row * uniforms.params.rows_pitch + column;
  return split(value_bits(rows[element / values_per_word], element % values_per_word));
}

// #if scaled
fn scale_of(row: u32) -> f32 {
  return row_scale[row];
}
// #else
fn scale_of(row: u32) -> f32 {
  return 1.0;
}
// #end
// #if filtered
fn passes(row: u32) -> bool {
  let number = uniforms.window.first_row + row;
  return ((row_filter[number / 32u] >> (number % 32u)) & 1u) == 1u;
}
// #else
fn passes(row: u32) -> bool {
  return true;
}
// #end

// The best k of fan_in lists of a query. Lists are of ascending rows, so a later equal never belongs before an earlier one.
fn join(query: u32, part: u32, thread: u32) {
  let k = uniforms.params.k;
  let first = part * uniforms.window.fan_in;
  let entries = (min(first + uniforms.window.fan_in, uniforms.window.source_lists) - first) * k;
  let start = (query * uniforms.window.source_lists + first) * k;
  top_start(thread);
  for (var base = 0u; base < entries; base += workgroup_threads) {
    var entry = vec2u(0u, 0u);
    if (base + thread < entries) {
      entry = lists_in[start + base + thread];
    }
    top_append(0u, entry.x, entry.y);
    top_make_room(k, thread);
  }
  top_finish(k, thread);
}

@compute @workgroup_size(workgroup_threads)
fn merge(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  join(group.y, group.x, thread);
  let k = uniforms.params.k;
  let start = (group.y * uniforms.window.lists + group.x) * k;
  for (var i = thread; i < k; i += workgroup_threads) {
    lists_out[start + i] = top_entry(0u, i);
  }
}

@compute @workgroup_size(workgroup_threads)
fn finish(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let query = group.y;
  join(query, 0u, thread);
  let k = uniforms.params.k;
  let flip = select(0u, sign_bit, metric == l2);
  for (var i = thread; i < k; i += workgroup_threads) {
    let entry = top_entry(0u, i);
    ids[query * k + i] = bitcast<i32>(entry.y);
    let bits = select(bits_of_key(entry.x), infinity_bits | sign_bit, entry.x == 0u) ^ flip;
    scores[query * k + i] = select(bits, 0u, bits == sign_bit);
  }
  if (thread == 0u) {
    found[query] = top_count(0u);
  }
}
