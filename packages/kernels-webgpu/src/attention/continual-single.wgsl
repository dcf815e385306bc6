// attention/continual-single: the newest key and value go into a stream's ring, and out = sum_t softmax(scale q k)_t v_t,
// lse = ln sum_t exp(scale q k_t) over it.
// Pass `insert`, a workgroup a head of a stream, puts them there; pass `count` counts the steps; pass `attend`, a workgroup a head,
// takes chunks of as many tokens as it has threads: a token a thread for the logits, a column a thread for the values. f32,
// relative to whole powers of two. Bound by the latency of a head's loads: a window's keys and values are read once.
override workgroup_threads: u32 = 128u;
const faults_words: u32 = 64u;

struct Uniforms {
  params: AttentionContinualSingleParams,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// #if inserts
@group(0) @binding(1) var<storage, read> key: array<u32>;
@group(0) @binding(2) var<storage, read> value: array<u32>;
@group(0) @binding(3) var<storage, read_write> key_ring: array<u32>;
@group(0) @binding(4) var<storage, read_write> value_ring: array<u32>;
@group(0) @binding(5) var<storage, read> steps: array<u32>;
// Behind the faults, for each head: how many tokens it holds, 0 for none.
@group(0) @binding(6) var<storage, read_write> work: array<atomic<u32>>;

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
    if (thread == 0u) {
      atomicStore(&work[faults_words + head], turn.y);
      if (turn.y == 0u) {
        atomicMax(&work[0], ~stream);
      }
    }
    let at = (head * window + turn.x) * dim;
    for (var d = thread; turn.y > 0u && d < dim; d += workgroup_threads) {
      key_ring[at + d] = key[head * dim + d];
      value_ring[at + d] = value[head * dim + d];
    }
  }
}
// #end

// #if counts
@group(0) @binding(1) var<storage, read_write> steps: array<u32>;

@compute @workgroup_size(workgroup_threads)
fn count(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  for (var i = group.x * workgroup_threads + thread; i < uniforms.params.streams; i += groups.x * workgroup_threads) {
    steps[i] = steps_after(steps[i], uniforms.params.window);
  }
}
// #end

// #if exact
@group(0) @binding(1) var<storage, read> query: array<f32>;
@group(0) @binding(2) var<storage, read> key_ring: array<f32>;
@group(0) @binding(3) var<storage, read> value_ring: array<f32>;
@group(0) @binding(4) var<storage, read> work: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<u32>;
@group(0) @binding(6) var<storage, read_write> lse: array<u32>;

fn query_value(at: u32) -> f32 {
  return query[at];
}
fn kept_value(at: u32) -> f32 {
  return bitcast<f32>(out[at]);
}
fn keep_value(at: u32, value: f32) {
  out[at] = bitcast<u32>(value);
}

@compute @workgroup_size(workgroup_threads)
fn attend(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let dim = uniforms.params.head_dim;
  for (var head = group.x; head < uniforms.params.streams * uniforms.params.heads; head += groups.x) {
    let held = work[faults_words + head];
    if (held == 0u) {
      for (var d = thread; d < dim; d += workgroup_threads) {
        out[head * dim + d] = 0u;
      }
      if (thread == 0u) {
        lse[head] = infinity_bits | sign_bit;
      }
      continue;
    }
    let row = exact_row(head * dim, head * uniforms.params.window * dim, held, head * dim, head * dim, thread);
    if (thread == 0u) {
      let sum = fma(row.power, 0.693147181, log(row.sum));
      lse[head] = select(nan_bits, bitcast<u32>(sum), row.finite);
    }
  }
}
// #end
