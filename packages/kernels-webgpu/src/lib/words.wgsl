// Rows whose start lies within a word, and whose end does.
// The word that starts at a place of one word and ends in the next.
fn joined(low: Word, high: Word, place: u32) -> Word {
// #if values_f32
  return low;
// #else
// #if shader_f16
  return select(low, Word(low.y, high.x), place == 1u);
// #else
  let shift = place * (32u / values_per_word);
  return select((low >> shift) | (high << ((32u - shift) & 31u)), low, place == 0u);
// #end
// #end
}

// A word with zeros from place `left` on.
fn first_values(word: Word, left: u32) -> Word {
  if (left >= values_per_word) {
    return word;
  }
// #if shader_f16
  return Word(word.x, 0.0h);
// #else
  return word & ((1u << (left * (32u / values_per_word))) - 1u);
// #end
}
