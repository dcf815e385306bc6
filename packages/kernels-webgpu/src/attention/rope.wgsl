// attention/rope: (out_a, out_b) = (x_a cos - x_b sin, x_a sin + x_b cos) of position * frequency_i, for each pair of a head.
// The angle is reduced to a fraction of a turn by whole numbers (lib/turns): turns a position come from the host with 96
// bits for theta, or are made here of a frequency's significand and 128 bits of 1 / (2 pi), from where its exponent points.
// A thread a pair, or a component that passes unchanged. Bound by memory.
override workgroup_threads: u32 = 128u;
override rotary_pairs: u32 = 1u;

struct Uniforms {
  params: AttentionRopeParams,
  // Of the window bound here.
  tokens: u32,
// #if given
// #else
  // Of each pair: turns a position modulo 1, and the frequency as f32.
  table: array<vec4u, rotary_pairs>,
// #end
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> positions: array<i32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

struct Frequency {
  turns: vec3u,
  // In radians.
  bits: u32,
}

// #if given
@group(0) @binding(4) var<storage, read> frequencies: array<u32>;

fn frequency_of(pair: u32) -> Frequency {
  let bits = frequencies[pair];
  let exponent = i32(magnitude_of(bits) >> 23u);
  let significand = (bits & 0x7fffffu) | select(0u, 0x800000u, exponent > 0);
  // 1 / (2 pi) times 2^place, modulo 1: 128 bits of it.
  let place = max(exponent, 1) - 150;
  let last = wide_product(significand, inverse_turn(place + 96));
  let turns = turns_times(significand, vec3u(inverse_turn(place), inverse_turn(place + 32), inverse_turn(place + 64)));
  // The carry out of the word that is not kept.
  let z = turns.z + last.y;
  let y = turns.y + select(0u, 1u, z < last.y);
  let carries = z < last.y && y == 0u;
  return Frequency(vec3u(turns.x + select(0u, 1u, carries), y, z), bits);
}

// 32 bits of 1 / (2 pi), from `place` bits behind its point on.
fn inverse_turn(place: i32) -> u32 {
  let word = place >> 5u;
  let shift = u32(place & 31);
  let next = select(0u, inverse_turn_word(word + 1) >> ((32u - shift) & 31u), shift > 0u);
  return (inverse_turn_word(word) << shift) | next;
}

fn inverse_turn_word(word: i32) -> u32 {
  switch word {
    case 0: { return 0x28be60dbu; }
    case 1: { return 0x9391054au; }
    case 2: { return 0x7f09d5f4u; }
    case 3: { return 0x7d4d3770u; }
    case 4: { return 0x36d8a566u; }
    case 5: { return 0x4f10e410u; }
    case 6: { return 0x7f9458eau; }
    case 7: { return 0xf7aef158u; }
    default: { return 0u; }
  }
}
// #else
fn frequency_of(pair: u32) -> Frequency {
  let entry = uniforms.table[pair];
  return Frequency(entry.xyz, entry.w);
}
// #end

// Cosine and sine of position * frequency, which is finite.
fn point_of(position: i32, frequency: Frequency) -> vec2f {
  let magnitude = magnitude_of(frequency.bits);
  let steps = select(u32(position), 0u - u32(position), position < 0);
  let small = f32(steps) * bitcast<f32>(magnitude);
  var point = vec2f();
  // Below, the turn's bits are too few, and the cosine is 1.
  if (small < 0x1p-20f) {
    point = small_circle_point(small);
  } else {
    point = circle_point(turns_times(steps, frequency.turns));
  }
  let backwards = (position < 0) != (frequency.bits != magnitude);
  return vec2f(point.x, select(point.y, -point.y, backwards));
}

@compute @workgroup_size(workgroup_threads)
fn turn(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let dim = uniforms.params.head_dim;
  let heads = uniforms.params.heads;
  let items = dim - rotary_pairs;
  let index = (group.y * groups.x + group.x) * workgroup_threads + thread;
  let item = index % items;
  let head = index / items;
  if (head >= uniforms.tokens * heads) {
    return;
  }
  if (item >= rotary_pairs) {
    let rest = head * dim + rotary_pairs + item;
    out[rest] = x[rest];
    return;
  }
// #if halves
  let a = head * dim + item;
  let b = a + rotary_pairs;
// #else
  let a = head * dim + 2u * item;
  let b = a + 1u;
// #end
  let frequency = frequency_of(item);
  if (magnitude_of(frequency.bits) >= infinity_bits) {
    out[a] = nan_bits;
    out[b] = nan_bits;
    return;
  }
  let point = point_of(positions[head / heads], frequency);
  let first = bitcast<f32>(x[a]);
  let second = bitcast<f32>(x[b]);
  out[a] = bitcast<u32>(first * point.x - second * point.y);
  out[b] = bitcast<u32>(first * point.y + second * point.x);
}
