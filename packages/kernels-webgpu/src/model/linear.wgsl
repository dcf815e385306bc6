// model/linear: out = x weight^T + bias + residual; sums in f32, a token's in the same order wherever it stands.
// `multiply_few`: 32 threads share two rows of the matrix and go over them by 8 values, 16 bytes of f16, for up to
// few_tokens tokens at once, so that a weight is read once for them; then the threads' sums are added in pairs. Two rows
// share the loads of x. Bound by the bandwidth of the weights.
// `multiply_many`: a workgroup of 128 threads takes 32 rows and 64 tokens; 32 columns at a time, widened once, go through 13 KiB
// of workgroup memory, and each thread keeps 4 x 4 sums: two loads of 16 bytes for 16 multiply-adds. Bound by arithmetic.
override workgroup_threads: u32 = 128u;

struct Window {
  // Of the rows of the matrix, and of the tokens, bound here: the number of the first, and how many.
  first_row: u32,
  rows: u32,
  tokens: u32,
}

struct Uniforms {
  params: ModelLinearParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(2) var<storage, read> weight: array<Stored>;
// #if biased
@group(0) @binding(3) var<storage, read> bias: array<f32>;
// #end
// #if residual
@group(0) @binding(4) var<storage, read> residual: array<f32>;
// #end
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn finish(token: u32, row: u32, sum: f32) {
  let at = token * uniforms.params.out_dim + uniforms.window.first_row + row;
  var result = sum;
// #if biased
  result += bias[uniforms.window.first_row + row];
// #end
// #if residual
  result += residual[at];
// #end
  out[at] = result;
}

// Four values from column i on, a multiple of 4.
// #if eights
@group(0) @binding(1) var<storage, read> x: array<vec4f>;

fn x_four(token: u32, i: u32) -> vec4f {
  return x[(token * uniforms.params.in_dim + i) / 4u];
}

fn weight_four(row: u32, i: u32) -> vec4f {
// #if values_q8_0
  let place = q8_place(row, uniforms.params.in_dim, i);
  return q8_four(weight[place.scale_word], weight[place.word], weight[place.word + 1u], place);
// #else
  let four = (row * uniforms.params.in_dim + i) / 4u;
  return four_of(weight[four / stored_fours], four % stored_fours);
// #end
}
// #else
@group(0) @binding(1) var<storage, read> x: array<f32>;

// Zeros behind the end.
fn x_four(token: u32, i: u32) -> vec4f {
  let at = token * uniforms.params.in_dim + i;
  var four = vec4f();
  for (var j = 0u; j < 4u; j++) {
    if (i + j < uniforms.params.in_dim) {
      four[j] = x[at + j];
    }
  }
  return four;
}

fn weight_four(row: u32, i: u32) -> vec4f {
  let at = row * uniforms.params.in_dim + i;
  var four = vec4f();
  for (var j = 0u; j < 4u; j++) {
    if (i + j < uniforms.params.in_dim) {
      four[j] = value_of(weight[(at + j) / values_per_word], (at + j) % values_per_word);
    }
  }
  return four;
}
// #end

// #if few
override few_tokens: u32 = 1u;
const sharing: u32 = 32u;
const few_rows: u32 = 2u;
const sums_each: u32 = few_rows * few_tokens;
var<workgroup> partials: array<f32, workgroup_threads * sums_each>;

@compute @workgroup_size(workgroup_threads)
fn multiply_few(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  const tile = workgroup_threads / sharing * few_rows;
  let width = uniforms.params.in_dim;
  let height = uniforms.window.rows;
  let lane = thread % sharing;
  let first_token = group.y * few_tokens;
  let last_token = uniforms.window.tokens - 1u;
  for (var base = group.x * tile; base < height; base += groups.x * tile) {
    let row = base + thread / sharing * few_rows;
    var sums: array<vec4f, sums_each>;
    for (var i = 8u * lane; i < width; i += 8u * sharing) {
      var low: array<vec4f, few_rows>;
      var high: array<vec4f, few_rows>;
      // What is loaded for a row that is not there is not used.
      for (var r = 0u; r < few_rows; r++) {
        low[r] = weight_four(min(row + r, height - 1u), i);
        high[r] = weight_four(min(row + r, height - 1u), i + 4u);
      }
      for (var t = 0u; t < few_tokens; t++) {
        let token = min(first_token + t, last_token);
        let x_low = x_four(token, i);
        let x_high = x_four(token, i + 4u);
        for (var r = 0u; r < few_rows; r++) {
          sums[t * few_rows + r] = fma(high[r], x_high, fma(low[r], x_low, sums[t * few_rows + r]));
        }
      }
    }
    // The rows before are done with.
    workgroupBarrier();
    for (var s = 0u; s < sums_each; s++) {
      let four = sums[s];
      partials[s * workgroup_threads + thread] = (four.x + four.y) + (four.z + four.w);
    }
    workgroupBarrier();
    for (var half = sharing / 2u; half > 0u; half /= 2u) {
      if (lane < half) {
        for (var s = 0u; s < sums_each; s++) {
          partials[s * workgroup_threads + thread] += partials[s * workgroup_threads + thread + half];
        }
      }
      workgroupBarrier();
    }
    if (lane < few_rows && row + lane < height) {
      for (var t = 0u; t < few_tokens; t++) {
        if (first_token + t <= last_token) {
          finish(first_token + t, row + lane, partials[(t * few_rows + lane) * workgroup_threads + thread - lane]);
        }
      }
    }
  }
}
// #else
// Threads side by side along the rows; the others along the tokens. Each has 4 of both.
override row_fours: u32 = 8u;
override columns: u32 = 32u;
const token_fours: u32 = workgroup_threads / row_fours;
const column_fours: u32 = columns / 4u;
// [column][four rows or tokens], a stride that is odd: what 8 threads write together lies in different banks.
const row_stride: u32 = row_fours + 1u;
const token_stride: u32 = token_fours + 1u;
var<workgroup> weight_tile: array<vec4f, columns * row_stride>;
var<workgroup> x_tile: array<vec4f, columns * token_stride>;

// Where a thread stages: neighbours take two fours of columns of four of the rows (or tokens), so that loads are 32 bytes
// and more in a stretch.
struct Unit {
  column: u32,
  four: u32,
}
fn unit_of(unit: u32) -> Unit {
  const pairs = column_fours / 2u;
  return Unit((unit & 1u) + (unit / 8u % pairs) * 2u, unit / 2u % 4u + unit / 8u / pairs * 4u);
}

@compute @workgroup_size(workgroup_threads)
fn multiply_many(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let width = uniforms.params.in_dim;
  let height = uniforms.window.rows;
  let tokens = uniforms.window.tokens;
  let first_token = group.y * token_fours * 4u;
  let token_four = thread % token_fours;
  let row_four = thread / token_fours;
  for (var base = group.x * row_fours * 4u; base < height; base += groups.x * row_fours * 4u) {
    var sums: array<vec4f, 4>;
    for (var first = 0u; first < width; first += columns) {
      workgroupBarrier();
      for (var u = thread; u < row_fours * column_fours; u += workgroup_threads) {
        let unit = unit_of(u);
        stage_weights(unit, base + unit.four * 4u, first + unit.column * 4u);
      }
      for (var u = thread; u < token_fours * column_fours; u += workgroup_threads) {
        let unit = unit_of(u);
        stage_x(unit, first_token + unit.four * 4u, first + unit.column * 4u);
      }
      workgroupBarrier();
      for (var c = 0u; c < columns; c++) {
        let w = weight_tile[c * row_stride + row_four];
        let y = x_tile[c * token_stride + token_four];
        sums[0] = fma(vec4f(w.x), y, sums[0]);
        sums[1] = fma(vec4f(w.y), y, sums[1]);
        sums[2] = fma(vec4f(w.z), y, sums[2]);
        sums[3] = fma(vec4f(w.w), y, sums[3]);
      }
    }
    for (var r = 0u; r < 4u; r++) {
      for (var t = 0u; t < 4u; t++) {
        let row = base + row_four * 4u + r;
        let token = first_token + token_four * 4u + t;
        if (row < height && token < tokens) {
          finish(token, row, sums[r][t]);
        }
      }
    }
  }
}

// Rows and tokens that are not there are the last ones again, and not used. Behind the last column both sides are 0.
fn stage_weights(unit: Unit, row: u32, column: u32) {
  let last = uniforms.window.rows - 1u;
  var a = vec4f();
  var b = vec4f();
  var c = vec4f();
  var d = vec4f();
  if (column < uniforms.params.in_dim) {
    a = weight_four(min(row, last), column);
    b = weight_four(min(row + 1u, last), column);
    c = weight_four(min(row + 2u, last), column);
    d = weight_four(min(row + 3u, last), column);
  }
  for (var j = 0u; j < 4u; j++) {
    weight_tile[(unit.column * 4u + j) * row_stride + unit.four] = vec4f(a[j], b[j], c[j], d[j]);
  }
}

fn stage_x(unit: Unit, token: u32, column: u32) {
  let last = uniforms.window.tokens - 1u;
  var a = vec4f();
  var b = vec4f();
  var c = vec4f();
  var d = vec4f();
  if (column < uniforms.params.in_dim) {
    a = x_four(min(token, last), column);
    b = x_four(min(token + 1u, last), column);
    c = x_four(min(token + 2u, last), column);
    d = x_four(min(token + 3u, last), column);
  }
  for (var j = 0u; j < 4u; j++) {
    x_tile[(unit.column * 4u + j) * token_stride + unit.four] = vec4f(a[j], b[j], c[j], d[j]);
  }
}
// #end
