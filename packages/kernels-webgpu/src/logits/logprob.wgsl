// logits/logprob: with L the largest logit, S = sum exp(l - L), lnZ = L + ln S: chosen = l_target - lnZ, entropy = ln S -
// sum exp(l - L) (l - L) / S, best = the k largest l - lnZ, kl = sum exp(l - L) (l - o) / S - lnZ + lnZ of the others.
// Pass `measure`: a workgroup has a chunk of a row. It reads it for the largest and the list of the k best, and again, from the
// cache, for the sums relative to the chunk's largest: no sum fades more than once. Pass `finish`, a workgroup a row: joins
// chunks and lists. Sums in f32 go over 32 terms, 32 such sums, those sums, then a tree of the threads: below 200 roundings
// for 2^24 tokens. Whether a q of 0 counts depends on L: the largest logit that has one is kept, as a key.
// 4096 logits a chunk, so that a row of 32000 has 8 workgroups; more where k is large, as all lists are joined by one.
// Bound by memory: each logit is read once.
const state_words: u32 = 8u;
const p_invalid: u32 = 1u;
const q_invalid: u32 = 2u;
// The key of -Inf; NaN has key 0.
const least_key: u32 = 0x7fffffu;

struct Window {
  // Of the rows bound here: the number of the first, how many, and elements before it.
  first_row: u32,
  rows: u32,
  skip: u32,
  chunks: u32,
  chunk_tokens: u32,
  // Words before the lists: [rows, chunks, k] of key and token.
  lists_at: u32,
}
struct Uniforms {
  params: LogitsLogprobParams,
  window: Window,
}
// Behind the notes the states, [rows, chunks]: key of the largest logit, three sums, key of the largest of the others and their
// sum, key of the largest logit whose q is 0, flags.
struct Work {
  bad: array<atomic<u32>, 64>,
  words: array<u32>,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
// #if compares
@group(0) @binding(2) var<storage, read> others: array<u32>;
// #end
@group(0) @binding(3) var<storage, read_write> work: Work;
@group(0) @binding(4) var<storage, read> targets: array<u32>;
@group(0) @binding(5) var<storage, read_write> chosen: array<u32>;
@group(0) @binding(6) var<storage, read_write> entropy: array<u32>;
@group(0) @binding(7) var<storage, read_write> ids: array<u32>;
@group(0) @binding(8) var<storage, read_write> best: array<u32>;
@group(0) @binding(9) var<storage, read_write> kl: array<u32>;

// #if ranks
// #else
override workgroup_threads: u32 = 128u;
// #end
var<workgroup> largest: atomic<u32>;
var<workgroup> largest_other: atomic<u32>;
var<workgroup> largest_lost: atomic<u32>;
var<workgroup> flags: atomic<u32>;
var<workgroup> partials: array<vec4f, workgroup_threads>;

fn key_of(bits: u32) -> u32 {
  return select(order_key(bits), 0u, magnitude_of(bits) > infinity_bits);
}
fn is_invalid(bits: u32) -> bool {
  return magnitude_of(bits) > infinity_bits || bits == infinity_bits;
}

// exp(value - top) for keys of finite numbers, 0 for others. The difference is bounded, as it may overflow.
fn weight_of(key: u32, top: u32) -> f32 {
  let weight = exp(max(apart(key, top), -150.0));
  return select(select(weight, 1.0, key == top), 0.0, key <= least_key);
}
fn apart(key: u32, top: u32) -> f32 {
  return bitcast<f32>(bits_of_key(key)) - bitcast<f32>(bits_of_key(top));
}

@compute @workgroup_size(workgroup_threads)
fn measure(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let vocab = uniforms.params.vocab;
  let first = group.x * uniforms.window.chunk_tokens;
  let end = min(first + uniforms.window.chunk_tokens, vocab);
  for (var row = group.y; row < uniforms.window.rows; row += groups.y) {
    let start = uniforms.window.skip + row * vocab;
    let place = row * uniforms.window.chunks + group.x;
    rank(start, first, end, thread);
// #if ranks
    for (var i = thread; i < uniforms.params.k; i += workgroup_threads) {
      let at = uniforms.window.lists_at + 2u * (place * uniforms.params.k + i);
      work.words[at] = top_entry(0u, i).x;
      work.words[at + 1u] = top_entry(0u, i).y;
    }
// #end
    let top = atomicLoad(&largest);
    let other_top = atomicLoad(&largest_other);
    let sums = sums_of(start, first, end, top, other_top, thread);
    if (thread == 0u) {
      let at = state_words * place;
      work.words[at] = top;
      work.words[at + 1u] = bitcast<u32>(sums.x);
      work.words[at + 2u] = bitcast<u32>(sums.y);
      work.words[at + 3u] = bitcast<u32>(sums.z);
      work.words[at + 4u] = other_top;
      work.words[at + 5u] = bitcast<u32>(sums.w);
      work.words[at + 6u] = atomicLoad(&largest_lost);
      work.words[at + 7u] = atomicLoad(&flags);
    }
    workgroupBarrier();
  }
}

// The largest keys of a chunk, what is invalid in it, and its best tokens.
fn rank(start: u32, first: u32, end: u32, thread: u32) {
  if (thread == 0u) {
    atomicStore(&largest, 0u);
    atomicStore(&largest_other, 0u);
    atomicStore(&largest_lost, 0u);
    atomicStore(&flags, 0u);
  }
// #if ranks
  top_start(thread);
// #else
  workgroupBarrier();
// #end
  var top = 0u;
  var other_top = 0u;
  var lost = 0u;
  var wrong = 0u;
  for (var base = first; base < end; base += workgroup_threads) {
    let there = base + thread < end;
    let at = start + min(base + thread, end - 1u);
    let bits = logits[at];
    let key = select(0u, key_of(bits), there);
    top = max(top, key);
    wrong |= select(0u, p_invalid, is_invalid(bits));
// #if compares
    let other = others[at];
    other_top = max(other_top, key_of(other));
    wrong |= select(0u, q_invalid, is_invalid(other));
    lost = select(lost, max(lost, key), other == (infinity_bits | sign_bit));
// #end
// #if ranks
    top_append(0u, key, base + thread);
    top_make_room(uniforms.params.k, thread);
// #end
  }
  atomicMax(&largest, top);
  atomicMax(&largest_other, other_top);
  atomicMax(&largest_lost, lost);
  atomicOr(&flags, wrong);
// #if ranks
  top_finish(uniforms.params.k, thread);
// #end
  workgroupBarrier();
}

// Sums of w, w (l - top), w (l - o), and of the others' w: thread 0 has them.
fn sums_of(start: u32, first: u32, end: u32, top: u32, other_top: u32, thread: u32) -> vec4f {
  var sums: array<vec4f, 3>;
  var count = 0u;
  for (var i = first + thread; i < end; i += workgroup_threads) {
    let key = key_of(logits[start + i]);
    let weight = weight_of(key, top);
    var terms = vec4f(weight, select(weight * apart(key, top), 0.0, weight == 0.0), 0.0, 0.0);
// #if compares
    let other = key_of(others[start + i]);
    let term = weight * apart(key, other);
    terms.z = select(term, 0.0, weight == 0.0 || other <= least_key);
    terms.w = weight_of(other, other_top);
// #end
    sums[0] += terms;
    count++;
    if (count % 32u == 0u) {
      sums[1] += sums[0];
      sums[0] = vec4f();
    }
    if (count % 1024u == 0u) {
      sums[2] += sums[1];
      sums[1] = vec4f();
    }
  }
  var sum = sums[0] + sums[1] + sums[2];
  for (var half = workgroup_threads / 2u; half > 0u; half /= 2u) {
    partials[thread] = sum;
    workgroupBarrier();
    if (thread < half) {
      sum += partials[thread + half];
    }
    workgroupBarrier();
  }
  return sum;
}

// A row's chunks in one, and what else is known of it.
struct Row {
  top: u32,
  sum: f32,
  mean: f32,
  ratio: f32,
  other_top: u32,
  other_sum: f32,
  lost: u32,
  flags: u32,
}

fn row_of(row: u32) -> Row {
  let chunks = uniforms.window.chunks;
  var all: Row;
  for (var c = 0u; c < chunks; c++) {
    let at = state_words * (row * chunks + c);
    all.top = max(all.top, work.words[at]);
    all.other_top = max(all.other_top, work.words[at + 4u]);
    all.lost = max(all.lost, work.words[at + 6u]);
    all.flags |= work.words[at + 7u];
  }
  for (var c = 0u; c < chunks; c++) {
    let at = state_words * (row * chunks + c);
    let key = work.words[at];
    let weight = weight_of(key, all.top);
    if (weight != 0.0) {
      let size = bitcast<f32>(work.words[at + 1u]);
      all.sum = fma(weight, size, all.sum);
      all.mean = fma(weight, fma(apart(key, all.top), size, bitcast<f32>(work.words[at + 2u])), all.mean);
      all.ratio = fma(weight, bitcast<f32>(work.words[at + 3u]), all.ratio);
    }
    all.other_sum = fma(weight_of(work.words[at + 4u], all.other_top), bitcast<f32>(work.words[at + 5u]), all.other_sum);
  }
  all.flags |= select(0u, p_invalid, all.top <= least_key) | select(0u, q_invalid, all.other_top <= least_key);
  return all;
}

// l - lnZ, of the key of l.
fn log_share(all: Row, key: u32) -> u32 {
  if ((all.flags & p_invalid) != 0u) {
    return nan_bits;
  }
  return select(bitcast<u32>(apart(key, all.top) - log(all.sum)), infinity_bits | sign_bit, key <= least_key);
}

@compute @workgroup_size(workgroup_threads)
fn finish(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  for (var row = group.x; row < uniforms.window.rows; row += groups.x) {
    let all = row_of(row);
    let t = uniforms.window.first_row + row;
    if (thread == 0u) {
      let target_id = targets[t];
      var share = 0u;
      if (target_id < uniforms.params.vocab) {
        share = log_share(all, key_of(logits[uniforms.window.skip + row * uniforms.params.vocab + target_id]));
      } else if (target_id != 0xffffffffu) {
        atomicMax(&work.bad[0], ~t);
      }
      chosen[t] = share;
      entropy[t] = select(bitcast<u32>(log(all.sum) - all.mean / all.sum), nan_bits, (all.flags & p_invalid) != 0u);
// #if compares
      kl[t] = divergence(all);
// #end
    }
// #if ranks
    let k = uniforms.params.k;
    let entries = uniforms.window.chunks * k;
    let list = uniforms.window.lists_at + 2u * row * entries;
    top_start(thread);
    for (var base = 0u; base < entries; base += workgroup_threads) {
      var entry = vec2u();
      if (base + thread < entries) {
        let at = list + 2u * (base + thread);
        entry = vec2u(work.words[at], work.words[at + 1u]);
      }
      top_append(0u, entry.x, entry.y);
      top_make_room(k, thread);
    }
    top_finish(k, thread);
    for (var i = thread; i < k; i += workgroup_threads) {
      let entry = top_entry(0u, i);
      ids[t * k + i] = entry.y;
      best[t * k + i] = select(log_share(all, entry.x), infinity_bits | sign_bit, entry.x == 0u);
    }
    workgroupBarrier();
// #end
  }
}

// #if compares
// A token that is none in sums, 87 or more below the largest, may have a q of 0.
fn divergence(all: Row) -> u32 {
  if (all.flags != 0u) {
    return nan_bits;
  }
  if (all.lost > least_key && apart(all.lost, all.top) > -87.0) {
    return infinity_bits;
  }
  return bitcast<u32>(all.ratio / all.sum + apart(all.other_top, all.top) + (log(all.other_sum) - log(all.sum)));
}
// #end
