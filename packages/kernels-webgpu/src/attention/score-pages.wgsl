// Where the pages of a sequence lie among those bound here, for kernels that score granules: with `uniforms`, `page_table` and
// `notes` of theirs. A cache beyond one binding comes in windows of pages.

// Of what is nowhere, and of what another launch sees.
const nowhere: u32 = 0xffffffffu;
const elsewhere: u32 = 0xfffffffeu;

struct Window {
  // Of the pages bound here: the number of the first, and how many.
  first_page: u32,
  pages: u32,
  padding_0: u32,
  padding_1: u32,
}

fn place_of(b: u32, token: u32) -> u32 {
  let entry = b * uniforms.params.max_pages + token / uniforms.params.page_size;
  let page = page_table[entry];
  if (page >= uniforms.params.pages) {
    atomicMax(&notes[0], ~entry);
    return nowhere;
  }
  // Below the first page it wraps around to beyond the last one.
  let place = page - uniforms.window.first_page;
  return select(place, elsewhere, place >= uniforms.window.pages);
}
