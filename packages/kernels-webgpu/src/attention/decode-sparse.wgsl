// Pass `look_up` of attention/decode-sparse: a thread a position of a list; where the cache holds its token goes to scratch,
// page * page_size + offset, nowhere for none; the token beside it where biases need it. Entries, lengths and pages are compared here, where they are loaded; the lowest
// bad one of each is noted. Bound by the latency of three loads.
override workgroup_threads: u32 = 128u;
const nowhere: u32 = 0xffffffffu;

struct States {
  bad: array<atomic<u32>, 64>,
  words: array<u32>,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> page_table: array<u32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read> selected: array<u32>;
@group(0) @binding(4) var<storage, read_write> states: States;

@compute @workgroup_size(workgroup_threads)
fn look_up(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let params = uniforms.params;
  let window = uniforms.window;
  let each = params.k * params.granularity;
  for (var i = group.x * workgroup_threads + thread; i < window.sequences * params.lists * each; i += groups.x * workgroup_threads) {
// #if biased
    states.words[window.tokens_start + i] = nowhere;
// #end
    states.words[window.slots_start + i] = position_of(i, window.first_sequence + i / each / params.lists, window.first_sequence * params.lists + i / each, i % each);
  }
}

fn position_of(i: u32, sequence: u32, list: u32, at: u32) -> u32 {
  let params = uniforms.params;
  let length = lengths[sequence];
  if (length > params.max_pages * params.page_size) {
    atomicMax(&states.bad[1], ~sequence);
    return nowhere;
  }
  let entry = list * params.k + at / params.granularity;
  let granule = selected[entry];
  if (granule == nowhere) {
    return nowhere;
  }
  if (granule >= (length + params.granularity - 1u) / params.granularity) {
    atomicMax(&states.bad[2], ~entry);
    return nowhere;
  }
  let token = granule * params.granularity + at % params.granularity;
  let first = length - select(min(params.window, length), length, params.window == 0u);
  if (token < first || token >= length) {
    return nowhere;
  }
  let place = sequence * params.max_pages + token / params.page_size;
  let page = page_table[place];
  if (page >= params.pages) {
    atomicMax(&states.bad[0], ~place);
    return nowhere;
  }
// #if biased
  states.words[uniforms.window.tokens_start + i] = token;
// #end
  return page * params.page_size + token % params.page_size;
}
