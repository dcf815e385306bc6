// Stored values in 32-bit words, by dtype: how many a word holds, one as f32, and the bits of that f32.
// #if values_f32
const values_per_word: u32 = 1u;
fn value_bits(word: u32, place: u32) -> u32 {
  return word;
}
fn value_of(word: u32, place: u32) -> f32 {
  return bitcast<f32>(word);
}
// #end
// #if values_bf16
const values_per_word: u32 = 2u;
fn value_bits(word: u32, place: u32) -> u32 {
  return (word >> (16u * place)) << 16u;
}
fn value_of(word: u32, place: u32) -> f32 {
  return bitcast<f32>(value_bits(word, place));
}
// #end
// #if values_f16
const values_per_word: u32 = 2u;
// By integers: unpack2x16float may flush subnormals, which are most of a small row.
fn value_bits(word: u32, place: u32) -> u32 {
  let half = (word >> (16u * place)) & 0xffffu;
  let sign = (half & 0x8000u) << 16u;
  let magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) {
    return sign | infinity_bits | (magnitude << 13u);
  }
  if (magnitude < 0x400u) {
    return sign | bitcast<u32>(f32(magnitude) * 0x1p-24f);
  }
  return sign | ((magnitude << 13u) + 0x38000000u);
}
// #if shader_f16
fn value_of(word: u32, place: u32) -> f32 {
  return f32(bitcast<vec2<f16>>(word)[place]);
}
// #else
fn value_of(word: u32, place: u32) -> f32 {
  return bitcast<f32>(value_bits(word, place));
}
// #end
// #end
// #if values_i8
const values_per_word: u32 = 4u;
fn value_of(word: u32, place: u32) -> f32 {
  return f32(extractBits(bitcast<i32>(word), 8u * place, 8u));
}
fn value_bits(word: u32, place: u32) -> u32 {
  return bitcast<u32>(value_of(word, place));
}
// #end
