// Stored values in 32-bit words, by dtype: how many a word holds, one as f32, and the bits of that f32.
// #if values_f32
const values_per_word: u32 = 1u;
alias Word = u32;
fn value_bits(word: Word, place: u32) -> u32 {
  return word;
}
fn value_of(word: Word, place: u32) -> f32 {
  return bitcast<f32>(word);
}
// #end
// #if values_bf16
const values_per_word: u32 = 2u;
alias Word = u32;
fn value_bits(word: Word, place: u32) -> u32 {
  return (word >> (16u * place)) << 16u;
}
fn value_of(word: Word, place: u32) -> f32 {
  return bitcast<f32>(value_bits(word, place));
}
// #end
// #if values_f16
const values_per_word: u32 = 2u;
// #if shader_f16
// Buffers are of this type: not every compiler reinterprets a u32 as two f16.
alias Word = vec2<f16>;
fn value_bits(word: Word, place: u32) -> u32 {
  return bitcast<u32>(f32(word[place]));
}
fn value_of(word: Word, place: u32) -> f32 {
  return f32(word[place]);
}
// #else
alias Word = u32;
// By integers: unpack2x16float may flush subnormals, which are most of a small row.
fn value_bits(word: Word, place: u32) -> u32 {
  let half = (word >> (16u * place)) & 0xffffu;
  let magnitude = half & 0x7fffu;
  let small = bitcast<u32>(f32(magnitude) * 0x1p-24f);
  let usual = (magnitude << 13u) + select(0x38000000u, 0x70000000u, magnitude >= 0x7c00u);
  return ((half & 0x8000u) << 16u) | select(usual, small, magnitude < 0x400u);
}
fn value_of(word: Word, place: u32) -> f32 {
  return bitcast<f32>(value_bits(word, place));
}
// #end
// #end
// #if values_i8
const values_per_word: u32 = 4u;
alias Word = u32;
fn value_of(word: Word, place: u32) -> f32 {
  return f32(extractBits(bitcast<i32>(word), 8u * place, 8u));
}
fn value_bits(word: Word, place: u32) -> u32 {
  return bitcast<u32>(value_of(word, place));
}
// #end
