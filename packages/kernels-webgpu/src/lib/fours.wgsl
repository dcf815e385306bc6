// Rows of stored weights, four values at a time: what a buffer holds, how many fours that is, and one of them as f32.
// Rows of whole eights are loaded by 16 bytes (8 where f16 is a type: the widest vector of it); others value by value.
// To be used after lib/values.
// #if values_q8_0
alias Stored = u32;
fn q8_four(scale_word: u32, low: u32, high: u32, place: Q8Place) -> vec4f {
  // Values start at a word's first or third byte.
  let bytes = bitcast<i32>(select(low, (low >> 16u) | (high << 16u), place.shift != 0u));
  return q8_scale(scale_word, place) * vec4f((vec4i(bytes) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));
}
// #else
// #if eights
// #if values_f32
alias Stored = vec4f;
const stored_fours: u32 = 1u;
fn four_of(stored: Stored, place: u32) -> vec4f {
  return stored;
}
// #end
// #if values_bf16
alias Stored = vec4u;
const stored_fours: u32 = 2u;
fn four_of(stored: Stored, place: u32) -> vec4f {
  let words = select(stored.xy, stored.zw, place == 1u);
  return bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}
// #end
// #if values_f16
// #if shader_f16
alias Stored = vec4<f16>;
const stored_fours: u32 = 1u;
fn four_of(stored: Stored, place: u32) -> vec4f {
  return vec4f(stored);
}
// #else
alias Stored = vec4u;
const stored_fours: u32 = 2u;
fn four_of(stored: Stored, place: u32) -> vec4f {
  let words = select(stored.xy, stored.zw, place == 1u);
  let low = half_bits(words.x & 0xffffu);
  let high = half_bits(words.y & 0xffffu);
  return bitcast<vec4f>(vec4u(low, half_bits(words.x >> 16u), high, half_bits(words.y >> 16u)));
}
// #end
// #end
// #else
alias Stored = Word;
// #end
// #end
