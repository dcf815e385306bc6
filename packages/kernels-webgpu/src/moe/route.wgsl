// moe/route: ids = top-k of z or s + bias, weights = scale s / (sum of the chosen s + 1e-20); s = softmax(z) or sigmoid(z).
// A workgroup a token, experts dealt to its threads; top-k by lib/top-k.wgsl, for groups and for experts. What is compared is an
// order key, computed anew at each round from the logits, which are in the cache: 4096 keys would fill workgroup memory.
// A group's two best are the largest key, and the largest of the others unless the first stands twice: no order shows.
// Precision: f32. Without bias choices are those of the logits, exact; with it s + bias is right to some units of its last place, so
// that only scores that close can change places. Renormalised shares are relative to the largest of the chosen, as s may be less
// than any f32 and its share not.
// Bound by latency: 128 experts are one round and a sort of 28 steps.
const least_key: u32 = 0x7fffffu;
// ln(1e-20).
const floor_log: f32 = -46.051701859880914;
const most_groups: u32 = 256u;
const most_chosen: u32 = 64u;

struct Uniforms {
  params: MoeRouteParams,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
// #if biased
@group(0) @binding(2) var<storage, read> bias: array<u32>;
// #end
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> weights: array<u32>;

var<workgroup> largest: atomic<u32>;
var<workgroup> nans: atomic<u32>;
var<workgroup> partials: array<f32, workgroup_threads>;
var<workgroup> shares: array<f32, most_chosen>;
// #if grouped
var<workgroup> group_first: array<atomic<u32>, most_groups>;
var<workgroup> group_second: array<atomic<u32>, most_groups>;
var<workgroup> group_firsts: array<atomic<u32>, most_groups>;
var<workgroup> group_kept: array<u32, most_groups>;
// #end

fn key_of(bits: u32) -> u32 {
  return select(order_key(bits), least_key, magnitude_of(bits) > infinity_bits);
}
fn value_of_key(key: u32) -> f32 {
  return bitcast<f32>(bits_of_key(key));
}

// A token: where its logits are, the key of the largest, what exp(z - largest) adds up to.
struct Token {
  start: u32,
  top: u32,
  total: f32,
}

// The exponent of a score, at most 0: of the softmax before it is divided, or of a sigmoid below 1/2.
fn exponent_of(token: Token, key: u32) -> f32 {
// #if softmax
  return select(max(value_of_key(key) - value_of_key(token.top), -150.0), 0.0, key == token.top);
// #else
  return max(min(value_of_key(key), 0.0), -150.0);
// #end
}

// exp(exponent - more) and what divides it.
fn score_of(token: Token, key: u32, more: f32) -> f32 {
  let exponent = exponent_of(token, key) - more;
  var power = select(exp(exponent), 1.0, exponent == 0.0);
// #if softmax
  if (key == least_key && token.top != least_key) {
    power = 0.0;
  }
  return power / token.total;
// #else
  if (key == least_key) {
    power = 0.0;
  }
  return power / (1.0 + exp(-min(abs(value_of_key(key)), 150.0)));
// #end
}

// The key by which an expert is compared.
fn compared(token: Token, expert: u32) -> u32 {
  let key = key_of(logits[token.start + expert]);
// #if biased
  let offset = bias[expert];
  if (magnitude_of(offset) >= infinity_bits) {
    return key_of(offset);
  }
  return order_key(bitcast<u32>(score_of(token, key, 0.0) + bitcast<f32>(offset)));
// #else
  return key;
// #end
}

@compute @workgroup_size(workgroup_threads)
fn choose(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  for (var t = group.x; t < uniforms.params.tokens; t += groups.x) {
    choose_for(t, thread);
    workgroupBarrier();
  }
}

fn choose_for(t: u32, thread: u32) {
  let params = uniforms.params;
  if (thread == 0u) {
    atomicStore(&largest, 0u);
    atomicStore(&nans, 0u);
  }
  let token = token_of(t * params.experts, thread);
// #if grouped
  keep_groups(token, thread);
// #end
  top_start(thread);
  for (var base = 0u; base < params.experts; base += workgroup_threads) {
    let expert = base + thread;
    var key = 0u;
    if (expert < params.experts) {
// #if grouped
      if (group_kept[expert / (params.experts / params.groups)] != 0u) {
        key = compared(token, expert);
      }
// #else
      key = compared(token, expert);
// #end
    }
    top_append(0u, key, expert);
    top_make_room(params.top_k, thread);
  }
  top_finish(params.top_k, thread);
  write(t, token, thread);
}

fn token_of(start: u32, thread: u32) -> Token {
  let experts = uniforms.params.experts;
  var top = 0u;
  var nan = 0u;
  for (var e = thread; e < experts; e += workgroup_threads) {
    let bits = logits[start + e];
    top = max(top, key_of(bits));
    nan |= u32(magnitude_of(bits) > infinity_bits);
  }
  workgroupBarrier();
  atomicMax(&largest, top);
  atomicMax(&nans, nan);
  workgroupBarrier();
  var token = Token(start, atomicLoad(&largest), 1.0);
// #if softmax
  var sum = 0.0;
  for (var e = thread; e < experts; e += workgroup_threads) {
    sum += score_of(token, key_of(logits[start + e]), 0.0);
  }
  for (var half = workgroup_threads / 2u; half > 0u; half /= 2u) {
    partials[thread] = sum;
    workgroupBarrier();
    if (thread < half) {
      sum += partials[thread + half];
    }
    workgroupBarrier();
  }
  partials[thread] = sum;
  workgroupBarrier();
  token.total = partials[0];
// #end
  return token;
}

// #if grouped
fn keep_groups(token: Token, thread: u32) {
  let params = uniforms.params;
  let size = params.experts / params.groups;
  for (var g = thread; g < params.groups; g += workgroup_threads) {
    atomicStore(&group_first[g], 0u);
    atomicStore(&group_second[g], 0u);
    atomicStore(&group_firsts[g], 0u);
    group_kept[g] = 0u;
  }
  workgroupBarrier();
  for (var e = thread; e < params.experts; e += workgroup_threads) {
    atomicMax(&group_first[e / size], compared(token, e));
  }
  workgroupBarrier();
// #if biased
  for (var e = thread; e < params.experts; e += workgroup_threads) {
    let key = compared(token, e);
    if (key == atomicLoad(&group_first[e / size])) {
      atomicAdd(&group_firsts[e / size], 1u);
    } else {
      atomicMax(&group_second[e / size], key);
    }
  }
  workgroupBarrier();
// #end
  top_start(thread);
  for (var base = 0u; base < params.groups; base += workgroup_threads) {
    let g = base + thread;
    var key = 0u;
    if (g < params.groups) {
      key = worth(g, size);
    }
    top_append(0u, key, g);
    top_make_room(params.kept_groups, thread);
  }
  top_finish(params.kept_groups, thread);
  for (var i = thread; i < params.kept_groups; i += workgroup_threads) {
    group_kept[top_entry(0u, i).y] = 1u;
  }
  workgroupBarrier();
}

// The key of a group: its best, with a bias the sum of its two best; of infinities of both signs -Inf.
fn worth(g: u32, size: u32) -> u32 {
  let first = atomicLoad(&group_first[g]);
// #if biased
  if (size > 1u) {
    let second = select(atomicLoad(&group_second[g]), first, atomicLoad(&group_firsts[g]) > 1u);
    if (second == least_key || first == least_key) {
      return least_key;
    }
    if (bits_of_key(first) == infinity_bits) {
      return first;
    }
    return order_key(bitcast<u32>(value_of_key(first) + value_of_key(second)));
  }
// #end
  return first;
}
// #end

// The chosen are in the list, best first.
fn write(t: u32, token: Token, thread: u32) {
  let k = uniforms.params.top_k;
// #if renormalise
  var top = -150.0;
  for (var i = 0u; i < k; i++) {
    top = max(top, exponent_of(token, key_of(logits[token.start + top_entry(0u, i).y])));
  }
// #else
  let top = 0.0;
// #end
  for (var i = thread; i < k; i += workgroup_threads) {
    let expert = top_entry(0u, i).y;
    ids[t * k + i] = expert;
    shares[i] = score_of(token, key_of(logits[token.start + expert]), top);
  }
  workgroupBarrier();
  var whole = 1.0;
// #if renormalise
  whole = exp(min(floor_log - top, 87.0));
  for (var i = 0u; i < k; i++) {
    whole += shares[i];
  }
// #end
  for (var i = thread; i < k; i += workgroup_threads) {
    weights[t * k + i] = select(bitcast<u32>(shares[i] / whole * uniforms.params.scale), nan_bits, atomicLoad(&nans) != 0u);
  }
}
