// attention/key-hashes: the signs of each new key, as bits, into its slot. A thread a word of a hash, 32 components. Signs are
// told by bits: below 0 is above -0 and no NaN. Keys beyond one binding come in windows of tokens, hashes in windows of
// pages; a word is written by the launch that sees both. Bound by the keys' bandwidth.
override workgroup_threads: u32 = 128u;

struct Window {
  // Of the slots and of the tokens bound here: the number of the first page's first slot, and how many; the same of tokens.
  first_slot: u32,
  slots: u32,
  first_token: u32,
  tokens: u32,
}
struct Uniforms {
  params: AttentionKeyHashesParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> keys: array<u32>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read_write> hash_pages: array<u32>;
@group(0) @binding(4) var<storage, read_write> notes: array<atomic<u32>>;

@compute @workgroup_size(workgroup_threads)
fn hash_keys(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let params = uniforms.params;
  let words = params.bits / 32u;
  for (var t = group.x; t < uniforms.window.tokens; t += groups.x) {
    let slot = slots[uniforms.window.first_token + t];
    if (slot == 0xffffffffu) {
      continue;
    }
    if (slot >= params.pages * params.page_size) {
      atomicMax(&notes[0], ~(uniforms.window.first_token + t));
      continue;
    }
    // Below the first slot it wraps around to beyond the last one.
    let place = slot - uniforms.window.first_slot;
    if (place >= uniforms.window.slots) {
      continue;
    }
    for (var i = thread; i < params.kv_heads * words; i += workgroup_threads) {
      let start = (t * params.kv_heads * words + i) * 32u;
      var word = 0u;
      for (var bit = 0u; bit < 32u; bit++) {
        // The bits of numbers below 0 follow on each other, from the smallest to -Inf.
        word |= u32(keys[start + bit] - (sign_bit + 1u) < infinity_bits) << bit;
      }
      let row = (place / params.page_size * params.kv_heads + i / words) * params.page_size + place % params.page_size;
      hash_pages[row * words + i % words] = word;
    }
  }
}
