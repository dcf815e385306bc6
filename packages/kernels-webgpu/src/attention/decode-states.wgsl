// What both passes of attention/decode see: the launch, and how states lie in scratch. The head of scratch is the notes of bad
// entries; then come two words a state, [rows, states]: the key of its largest logit and the sum of its weights; then
// [rows, states, value_dim]: its weighted values.
struct Window {
  first_sequence: u32,
  sequences: u32,
  // Of the pages bound here: the number of the first, and how many.
  first_page: u32,
  pages: u32,
  // Workgroups of a sequence, and where their states start among the states of a row.
  parts: u32,
  first_state: u32,
  states: u32,
  // Words before the values of states.
  values_start: u32,
  // Query heads of a group, and how many workgroups share them; the same for the columns of values, in fours.
  group_heads: u32,
  head_parts: u32,
  column_parts: u32,
  fours: u32,
// #if listed
  // Words before the slots of lists: [sequences, lists, k * granularity], where the cache holds each position of a list.
  slots_start: u32,
  padding_0: u32,
  padding_1: u32,
  padding_2: u32,
// #end
// #if weighed
  // Words before the masses: two a place, [rows, places]; places of a state, and of a row.
  masses_start: u32,
  state_places: u32,
  row_places: u32,
  padding_0: u32,
// #end
// #if biased
  // Words before what pass `gather` wrote: slopes [query_heads], then of each sequence its length and its pages [max_pages].
  gathered_start: u32,
  // And before the tokens of lists: [sequences, lists, k * granularity].
  tokens_start: u32,
  padding_3: u32,
  padding_4: u32,
// #end
}
struct Uniforms {
// #if listed
  params: AttentionDecodeSparseParams,
// #else
// #if weighed
  params: AttentionDecodeAnchorParams,
// #else
  params: AttentionDecodeParams,
// #end
// #end
  window: Window,
}

