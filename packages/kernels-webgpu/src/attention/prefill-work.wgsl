// What the passes of attention/prefill share: a launch, and the layout of scratch. Its head is the notes of bad entries; then
// come the number of tiles and whether sequences may overlap; four words a sequence; two words a row of states.
struct Window {
  // Of the tokens whose queries are bound here.
  first_token: u32,
  tokens: u32,
  // Of the pages bound here: the number of the first, and how many.
  first_page: u32,
  pages: u32,
  // Query heads of a KV head, and rows of a tile: a row is a query head of a token.
  group_heads: u32,
  tile_rows: u32,
  // Workgroups that share the columns of values.
  column_parts: u32,
  // Whether another window of pages came before, or is to come.
  resumes: u32,
  continues: u32,
  // Words before the states that are read, and that are written: the key of the largest logit and the sum of the weights.
  states_in: u32,
  states_out: u32,
  padding_0: u32,
}
struct Uniforms {
  params: AttentionPrefillParams,
  window: Window,
}
struct Work {
  bad: array<atomic<u32>, 64>,
  words: array<u32>,
}
const tiles_at: u32 = 0u;
const overlap_at: u32 = 1u;
// Of each sequence: its first token here; its rows a KV head; what is added to a token's number + 1 for the length it sees,
// less than 0 where there are more queries than tokens; the tiles before its own.
const spans_at: u32 = 4u;
const span_words: u32 = 4u;

const page_table_port: u32 = 0u;
const offsets_port: u32 = 1u;
const lengths_port: u32 = 2u;

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read_write> work: Work;

fn note(port: u32, index: u32) {
  atomicMax(&work.bad[port], ~index);
}
