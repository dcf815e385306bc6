// Query heads that share a KV head, side by side: lane_width of them in a Lane, head_blocks Lanes; and softmax over them.
// A logit has an order key, so that no comparison asks a float what it is: 0 for -Inf, which has no weight, and
// invalid_key for NaN and +Inf, which make everything of their head NaN.
const invalid_key: u32 = 0xffffffffu;
// #if lanes_1
const lane_width: u32 = 1u;
alias Lane = f32;
alias Bits = u32;
fn lane_of(all: vec4f) -> Lane {
  return all.x;
}
fn bits_of(all: vec4u) -> Bits {
  return all.x;
}
fn all_of(lane: Lane) -> vec4f {
  return vec4f(lane, 0.0, 0.0, 0.0);
}
fn all_bits_of(bits: Bits) -> vec4u {
  return vec4u(bits, 0u, 0u, 0u);
}
// #end
// #if lanes_2
const lane_width: u32 = 2u;
alias Lane = vec2f;
alias Bits = vec2u;
fn lane_of(all: vec4f) -> Lane {
  return all.xy;
}
fn bits_of(all: vec4u) -> Bits {
  return all.xy;
}
fn all_of(lane: Lane) -> vec4f {
  return vec4f(lane, 0.0, 0.0);
}
fn all_bits_of(bits: Bits) -> vec4u {
  return vec4u(bits, 0u, 0u);
}
// #end
// #if lanes_4
const lane_width: u32 = 4u;
alias Lane = vec4f;
alias Bits = vec4u;
fn lane_of(all: vec4f) -> Lane {
  return all;
}
fn bits_of(all: vec4u) -> Bits {
  return all;
}
fn all_of(lane: Lane) -> vec4f {
  return lane;
}
fn all_bits_of(bits: Bits) -> vec4u {
  return bits;
}
// #end

fn keys_of(logits: Lane) -> Bits {
  let bits = bitcast<Bits>(logits);
  let magnitude = bits & Bits(0x7fffffffu);
  let keys = select(bits | Bits(sign_bit), ~bits, bits > Bits(sign_bit));
  let weighed = select(keys, Bits(0u), bits == Bits(infinity_bits | sign_bit));
  return select(select(weighed, Bits(invalid_key), bits == Bits(infinity_bits)), Bits(invalid_key), magnitude > Bits(infinity_bits));
}

// The logits of keys that are neither 0 nor invalid.
fn logits_of(keys: Bits) -> Lane {
  return bitcast<Lane>(select(~keys, keys ^ Bits(sign_bit), (keys & Bits(sign_bit)) != Bits(0u)));
}

// exp(logit - top), and 0 for key 0. Differences are bounded, so that none overflows; exp(-150) is 0.
fn weights_of(keys: Bits, tops: Bits) -> Lane {
  let apart = max(logits_of(keys) - logits_of(tops), Lane(-150.0));
  return select(exp(apart), Lane(0.0), keys == Bits(0u));
}

// cap * tanh(logit / cap): by its series where 1 - exp(-2 x) would cancel; infinities become the cap, NaN stays.
fn capped(logits: Lane, cap: f32) -> Lane {
  let ratio = logits / cap;
  let square = ratio * ratio;
  let near = ratio * (1.0 + square * (square * (2.0 / 15.0 - square * (17.0 / 315.0)) - 1.0 / 3.0));
  let faded = exp(-2.0 * min(abs(ratio), Lane(20.0)));
  let far = (1.0 - faded) / (1.0 + faded);
  let tangent = select(near, select(far, -far, ratio < Lane(0.0)), abs(ratio) > Lane(0.2));
  let magnitude = bitcast<Bits>(logits) & Bits(0x7fffffffu);
  return select(cap * tangent, logits, magnitude > Bits(infinity_bits));
}
