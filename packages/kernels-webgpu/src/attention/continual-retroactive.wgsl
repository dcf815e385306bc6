// attention/continual-retroactive: out_i = AV_i / d_i for each query of the window, with d and AV brought up to date: what the
// leaving key weighed is taken off, what the new one weighs is added; rows whose estimated error grows too large are computed
// exactly, and so is the newest. No readback: a pass notes the rows that it refuses, and the next computes them.
// Pass `insert`, a workgroup a head of a stream, keeps what leaves the ring and puts the newest there. Pass `count`. Pass `update`, a
// thread a row: no barriers, and what a thread reads lies in a few lines. Pass `compute`, a workgroup a row, most of which
// have nothing to do. f32 relative to whole powers of two. Bound by memory: 4 window x dim floats a head.
override workgroup_threads: u32 = 128u;
const faults_words: u32 = 64u;
const row_extra: u32 = 3u;
const unit: f32 = 5.9604644775390625e-8;

struct Uniforms {
  params: AttentionContinualRetroactiveParams,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// Behind the faults, for each head: its turn, the key and the value that left it; then a word for each row: to be computed.
fn head_words(head: u32) -> u32 {
  return faults_words + head * (4u + 2u * uniforms.params.head_dim);
}
fn row_word(row: u32) -> u32 {
  return head_words(uniforms.params.streams * uniforms.params.heads) + row;
}

// #if inserts
@group(0) @binding(1) var<storage, read> query: array<u32>;
@group(0) @binding(2) var<storage, read> key: array<u32>;
@group(0) @binding(3) var<storage, read> value: array<u32>;
@group(0) @binding(4) var<storage, read_write> query_ring: array<u32>;
@group(0) @binding(5) var<storage, read_write> key_ring: array<u32>;
@group(0) @binding(6) var<storage, read_write> value_ring: array<u32>;
@group(0) @binding(7) var<storage, read> steps: array<u32>;
@group(0) @binding(8) var<storage, read_write> work: array<atomic<u32>>;

@compute @workgroup_size(workgroup_threads)
fn insert(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let dim = uniforms.params.head_dim;
  let window = uniforms.params.window;
  for (var head = group.x; head < uniforms.params.streams * uniforms.params.heads; head += groups.x) {
    let stream = head / uniforms.params.heads;
    let turn = turn_of(steps[stream], window);
    let words = head_words(head);
    if (thread == 0u) {
      atomicStore(&work[words], turn.x);
      atomicStore(&work[words + 1u], turn.y);
      atomicStore(&work[words + 2u], turn.z);
      atomicStore(&work[words + 3u], turn.w);
      if (turn.y == 0u) {
        atomicMax(&work[0], ~stream);
      }
    }
    let at = (head * window + turn.x) * dim;
    for (var d = thread; turn.y > 0u && d < dim; d += workgroup_threads) {
      atomicStore(&work[words + 4u + d], key_ring[at + d]);
      atomicStore(&work[words + 4u + dim + d], value_ring[at + d]);
      query_ring[at + d] = query[head * dim + d];
      key_ring[at + d] = key[head * dim + d];
      value_ring[at + d] = value[head * dim + d];
    }
  }
}
// #end

// #if counts
@group(0) @binding(1) var<storage, read_write> steps: array<u32>;
@group(0) @binding(2) var<storage, read_write> error: array<u32>;
@group(0) @binding(3) var<storage, read_write> recomputed: array<u32>;

@compute @workgroup_size(workgroup_threads)
fn count(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let streams = uniforms.params.streams;
  let first = group.x * workgroup_threads + thread;
  for (var i = first; i < streams; i += groups.x * workgroup_threads) {
    steps[i] = steps_after(steps[i], uniforms.params.window);
  }
  for (var i = first; i < streams * uniforms.params.heads; i += groups.x * workgroup_threads) {
    error[i] = 0u;
    recomputed[i] = 0u;
  }
}
// #end

// #if rows
@group(0) @binding(1) var<storage, read> query_ring: array<f32>;
@group(0) @binding(2) var<storage, read> key_ring: array<f32>;
@group(0) @binding(3) var<storage, read> value_ring: array<f32>;
@group(0) @binding(4) var<storage, read_write> rows: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<u32>;
@group(0) @binding(7) var<storage, read_write> error: array<atomic<u32>>;

fn query_value(at: u32) -> f32 {
  return query_ring[at];
}
fn kept_value(at: u32) -> f32 {
  return bitcast<f32>(rows[at]);
}
fn keep_value(at: u32, value: f32) {
  rows[at] = bitcast<u32>(value);
}
fn out_row(head: u32, slot: u32, oldest: u32) -> u32 {
  let window = uniforms.params.window;
  return (head * window + select(slot + window - oldest, slot - oldest, slot >= oldest)) * uniforms.params.head_dim;
}
// #end

// #if updates
@group(0) @binding(6) var<storage, read_write> work: array<u32>;
@group(0) @binding(8) var<storage, read_write> recomputed: array<atomic<u32>>;

// scale * q k of the key that left, in the order of ring_logit.
fn left_logit(query_at: u32, key_at: u32) -> f32 {
  let dim = uniforms.params.head_dim;
  var sums = vec4f();
  var i = 0u;
  for (; i + 4u <= dim; i += 4u) {
    let query = vec4f(query_value(query_at + i), query_value(query_at + i + 1u), query_value(query_at + i + 2u), query_value(query_at + i + 3u));
    let at = key_at + i;
    sums = fma(query, bitcast<vec4f>(vec4u(work[at], work[at + 1u], work[at + 2u], work[at + 3u])), sums);
  }
  for (; i < dim; i++) {
    sums.x = fma(query_value(query_at + i), bitcast<f32>(work[key_at + i]), sums.x);
  }
  return ((sums.x + sums.y) + (sums.z + sums.w)) * uniforms.params.scale;
}

// Whether the row is as it must be now.
fn update_row(head: u32, slot: u32, turn: vec4u) -> bool {
  let dim = uniforms.params.head_dim;
  let ring = head * uniforms.params.window * dim;
  let query_at = ring + slot * dim;
  let newest_at = ring + turn.x * dim;
  let left_at = head_words(head) + 4u;
  let row = (head * uniforms.params.window + slot) * (dim + row_extra);
  let full = turn.w == 1u;
  let in_logit = ring_logit(query_at, newest_at);
  var off_logit = 0.0;
  if (full) {
    off_logit = left_logit(query_at, left_at);
  }
  if (!is_finite(in_logit) || !is_finite(off_logit) || !is_finite(kept_value(row + dim + 2u))) {
    return false;
  }
  let arrived = split_exp(in_logit);
  let left = split_exp(off_logit);
  let power = max(kept_value(row + dim), arrived.power);
  let factor = scale_of(kept_value(row + dim) - power);
  let arrives = arrived.part * scale_of(arrived.power - power);
  let leaves = select(0.0, left.part * scale_of(left.power - power), full);
  let before = kept_value(row + dim + 1u) * factor;
  let sum = (before - leaves) + arrives;
  // A sum that cancelled may be anything.
  if (!(sum > 0.0)) {
    return false;
  }
  let estimate = (kept_value(row + dim + 2u) * before + (2.0 * unit * max(before, leaves) + unit * arrives)) / sum;
  if (!is_finite(estimate) || !(estimate < uniforms.params.tolerance)) {
    return false;
  }
  let out_at = out_row(head, slot, turn.z);
  for (var d = 0u; d < dim; d++) {
    var x = kept_value(row + d) * factor;
    if (full) {
      x = fma(-leaves, bitcast<f32>(work[left_at + dim + d]), x);
    }
    x = fma(arrives, value_ring[newest_at + d], x);
    let y = x / sum;
    if (!is_finite(y)) {
      return false;
    }
    keep_value(row + d, x);
    out[out_at + d] = bitcast<u32>(y);
  }
  keep_value(row + dim, power);
  keep_value(row + dim + 1u, sum);
  keep_value(row + dim + 2u, estimate);
  atomicMax(&error[head], bitcast<u32>(estimate));
  return true;
}

@compute @workgroup_size(workgroup_threads)
fn update(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let window = uniforms.params.window;
  let dim = uniforms.params.head_dim;
  let all = uniforms.params.streams * uniforms.params.heads * window;
  for (var index = group.x * workgroup_threads + thread; index < all; index += groups.x * workgroup_threads) {
    let head = index / window;
    let slot = index % window;
    let words = head_words(head);
    let turn = vec4u(work[words], work[words + 1u], work[words + 2u], work[words + 3u]);
    var refused = false;
    if (slot >= turn.y) {
      for (var d = 0u; d < dim; d++) {
        out[index * dim + d] = 0u;
      }
    } else if (slot == turn.x) {
      refused = true;
    } else if (!update_row(head, slot, turn)) {
      refused = true;
      atomicAdd(&recomputed[head], 1u);
    }
    work[row_word(index)] = select(0u, 1u, refused);
  }
}
// #end

// #if exact
@group(0) @binding(6) var<storage, read> work: array<u32>;

@compute @workgroup_size(workgroup_threads)
fn compute(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let window = uniforms.params.window;
  let dim = uniforms.params.head_dim;
  for (var index = group.x; index < uniforms.params.streams * uniforms.params.heads * window; index += groups.x) {
    if (work[row_word(index)] == 0u) {
      continue;
    }
    let head = index / window;
    let words = head_words(head);
    let kept = index * (dim + row_extra);
    let answer = exact_row(index * dim, head * window * dim, work[words + 1u], kept, out_row(head, index % window, work[words + 2u]), thread);
    for (var d = thread; !answer.sound && d < dim; d += workgroup_threads) {
      rows[kept + d] = 0u;
    }
    if (thread == 0u) {
      rows[kept + dim] = select(0u, bitcast<u32>(answer.power), answer.sound);
      rows[kept + dim + 1u] = select(0u, bitcast<u32>(answer.sum), answer.sound);
      rows[kept + dim + 2u] = select(infinity_bits, 0u, answer.sound);
      if (!answer.sound) {
        atomicMax(&error[head], infinity_bits);
      }
    }
  }
}
// #end
