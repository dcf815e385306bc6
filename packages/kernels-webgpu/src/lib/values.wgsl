// Stored values in 32-bit words, by dtype: how many a word holds, one as f32, and the bits of that f32.
// The bits of an f16 as f32. By integers: unpack2x16float may flush subnormals, which are most of a small row.
fn half_bits(half: u32) -> u32 {
  let magnitude = half & 0x7fffu;
  let small = bitcast<u32>(f32(magnitude) * 0x1p-24f);
  let usual = (magnitude << 13u) + select(0x38000000u, 0x70000000u, magnitude >= 0x7c00u);
  return ((half & 0x8000u) << 16u) | select(usual, small, magnitude < 0x400u);
}
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
fn value_bits(word: Word, place: u32) -> u32 {
  return half_bits((word >> (16u * place)) & 0xffffu);
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
// #if values_q8_0
// Blocks of an f16 scale and 32 signed bytes: 34 bytes, so that every second one starts within a word.
alias Word = u32;
struct Q8Place {
  // The word that the scale lies in, and where; the word that value i lies in, and where.
  scale_word: u32,
  scale_shift: u32,
  word: u32,
  shift: u32,
}
// Of value i of a row of `width`, which is whole blocks.
fn q8_place(row: u32, width: u32, i: u32) -> Q8Place {
  let block = (row * ((width + 31u) / 32u) + i / 32u) * 34u;
  let at = block + 2u + i % 32u;
  return Q8Place(block / 4u, 8u * (block % 4u), at / 4u, 8u * (at % 4u));
}
fn q8_scale(scale_word: u32, place: Q8Place) -> f32 {
  return bitcast<f32>(half_bits((scale_word >> place.scale_shift) & 0xffffu));
}
// Exact: 11 and 8 bits make 19.
fn q8_value(scale_word: u32, word: u32, place: Q8Place) -> f32 {
  return q8_scale(scale_word, place) * f32(extractBits(bitcast<i32>(word), place.shift, 8u));
}
// #end
