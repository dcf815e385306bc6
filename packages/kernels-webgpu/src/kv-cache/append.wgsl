// kv-cache/append: row [token, head] of keys and values goes to [page, head, place], in the cache's dtype; the same bits as
// on the CPU, so all of it is integer arithmetic: f16 and bf16 round to nearest even, and an i8 row's scale max|x| / 127 and
// its quotients are divisions of significands with their remainders.
// Pass `claim`: a workgroup a token compares its slot with those of the earlier tokens: the first has it, others are faults.
// Pass `store`: a workgroup a row, a thread a word of the cache. Rows whose length is no whole number of words share words with
// their neighbours: there a row's bits are cleared and set by atomics, which leave the others. Bound by memory.
override workgroup_threads: u32 = 128u;
const nobody: u32 = 0xffffffffu;
const faults_words: u32 = 64u;

struct Window {
  // Of the slots and of the tokens bound here: the number of the first page's first slot, and how many; the same of tokens.
  first_slot: u32,
  slots: u32,
  first_token: u32,
  tokens: u32,
}

struct Uniforms {
  params: KvCacheAppendParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// #if claims
@group(0) @binding(1) var<storage, read> slots: array<u32>;
// Behind the faults: the slot that each token has, or nobody.
@group(0) @binding(2) var<storage, read_write> work: array<atomic<u32>>;
var<workgroup> repeated: atomic<u32>;

@compute @workgroup_size(workgroup_threads)
fn claim(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  for (var t = group.x; t < uniforms.params.tokens; t += groups.x) {
    let slot = slots[t];
    let exists = slot < uniforms.params.pages * uniforms.params.page_size;
    // The token before is done with.
    workgroupBarrier();
    if (thread == 0u) {
      atomicStore(&repeated, 0u);
    }
    workgroupBarrier();
    for (var earlier = thread; exists && earlier < t; earlier += workgroup_threads) {
      if (slots[earlier] == slot) {
        atomicStore(&repeated, 1u);
      }
    }
    workgroupBarrier();
    if (thread == 0u) {
      let free = exists && atomicLoad(&repeated) == 0u;
      atomicStore(&work[faults_words + t], select(nobody, slot, free));
      if (!free && slot != nobody) {
        atomicMax(&work[0], ~t);
      }
    }
  }
}
// #else
@group(0) @binding(1) var<storage, read> keys: array<u32>;
@group(0) @binding(2) var<storage, read> values: array<u32>;
@group(0) @binding(3) var<storage, read> work: array<u32>;
@group(0) @binding(4) var<storage, read_write> key_pages: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> value_pages: array<atomic<u32>>;
// #if values_i8
@group(0) @binding(6) var<storage, read_write> key_scale: array<u32>;
@group(0) @binding(7) var<storage, read_write> value_scale: array<u32>;
// Largest magnitudes, of the key and of the value.
var<workgroup> largest: array<vec2u, workgroup_threads>;
// #end

@compute @workgroup_size(workgroup_threads)
fn store(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let heads = uniforms.params.kv_heads;
  let page_size = uniforms.params.page_size;
  let key_dim = uniforms.params.head_dim;
  let value_dim = uniforms.params.value_dim;
  for (var index = group.y * groups.x + group.x; index < uniforms.window.tokens * heads; index += groups.x * groups.y) {
    // Below the first slot it wraps around to beyond the last one, as nobody does.
    let slot = work[faults_words + uniforms.window.first_token + index / heads];
    let place = slot - uniforms.window.first_slot;
    let here = slot != nobody && place < uniforms.window.slots;
    let row = (place / page_size * heads + index % heads) * page_size + place % page_size;
// #if values_i8
    var tops = vec2u();
    if (here) {
      for (var i = thread; i < key_dim; i += workgroup_threads) {
        tops.x = max(tops.x, keys[index * key_dim + i] & 0x7fffffffu);
      }
      for (var i = thread; i < value_dim; i += workgroup_threads) {
        tops.y = max(tops.y, values[index * value_dim + i] & 0x7fffffffu);
      }
    }
    // The row before is done with.
    workgroupBarrier();
    largest[thread] = tops;
    workgroupBarrier();
    for (var half = workgroup_threads / 2u; half > 0u; half /= 2u) {
      if (thread < half) {
        largest[thread] = max(largest[thread], largest[thread + half]);
      }
      workgroupBarrier();
    }
    let key_step = step_of(largest[0].x);
    let value_step = step_of(largest[0].y);
    if (here && thread == 0u) {
      key_scale[row] = key_step;
      value_scale[row] = value_step;
    }
// #else
    const key_step = 0u;
    const value_step = 0u;
// #end
    if (here) {
      store_row(key_side, index, row, key_dim, key_step, thread);
      store_row(value_side, index, row, value_dim, value_step, thread);
    }
  }
}

// A row of `dim` elements, one of keys or values: no function can be told which buffer, so they branch.
const key_side: u32 = 0u;
const value_side: u32 = 1u;

fn store_row(side: u32, given_row: u32, page_row: u32, dim: u32, step: u32, thread: u32) {
  let start = page_row * dim;
  let end = (start + dim + per_word - 1u) / per_word;
  for (var word = start / per_word + thread; word < end; word += workgroup_threads) {
    var bits = 0u;
    var mask = 0u;
    for (var p = 0u; p < per_word; p++) {
      // Before the start it wraps around to beyond the end.
      let i = word * per_word + p - start;
      if (i < dim) {
        bits |= stored_bits(given_bits(side, given_row * dim + i), step) << (p * value_width);
        mask |= value_mask << (p * value_width);
      }
    }
    put(side, word, bits, mask);
  }
}

fn given_bits(side: u32, at: u32) -> u32 {
  if (side == key_side) {
    return keys[at];
  }
  return values[at];
}

fn put(side: u32, word: u32, bits: u32, mask: u32) {
  if (side == key_side) {
    if (mask == 0xffffffffu) {
      atomicStore(&key_pages[word], bits);
    } else {
      atomicAnd(&key_pages[word], ~mask);
      atomicOr(&key_pages[word], bits);
    }
  } else if (mask == 0xffffffffu) {
    atomicStore(&value_pages[word], bits);
  } else {
    atomicAnd(&value_pages[word], ~mask);
    atomicOr(&value_pages[word], bits);
  }
}

// #if values_f32
const per_word: u32 = 1u;
const value_width: u32 = 0u;
const value_mask: u32 = 0xffffffffu;
fn stored_bits(bits: u32, step: u32) -> u32 {
  return bits;
}
// #end
// #if values_f16
const per_word: u32 = 2u;
const value_width: u32 = 16u;
const value_mask: u32 = 0xffffu;
fn stored_bits(bits: u32, step: u32) -> u32 {
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = magnitude_of(bits);
  if (magnitude > infinity_bits) {
    return 0x7e00u;
  }
  if (magnitude >= 0x477ff000u) {
    return sign | 0x7c00u;
  }
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the spacing is 2^-24.
    return sign | shifted_even((magnitude & 0x7fffffu) | 0x800000u, 126u - (magnitude >> 23u), 0u);
  }
  return sign | shifted_even(magnitude - 0x38000000u, 13u, 0u);
}
// #end
// #if values_bf16
const per_word: u32 = 2u;
const value_width: u32 = 16u;
const value_mask: u32 = 0xffffu;
fn stored_bits(bits: u32, step: u32) -> u32 {
  if (magnitude_of(bits) > infinity_bits) {
    return 0x7fc0u;
  }
  return shifted_even(bits, 16u, 0u);
}
// #end
// #if values_i8
const per_word: u32 = 4u;
const value_width: u32 = 8u;
const value_mask: u32 = 0xffu;

struct Significand {
  // 2^23 to 2^24 - 1, and what power of two it is multiplied by, plus 150.
  value: u32,
  exponent: i32,
}
// Of a magnitude above 0.
fn significand_of(magnitude: u32) -> Significand {
  let exponent = i32(magnitude >> 23u);
  if (exponent > 0) {
    return Significand((magnitude & 0x7fffffu) | 0x800000u, exponent);
  }
  let shift = countLeadingZeros(magnitude) - 8u;
  return Significand(magnitude << shift, 1 - i32(shift));
}

// The bits of magnitude / 127, rounded to nearest even; NaN and infinity stay.
fn step_of(magnitude: u32) -> u32 {
  if (magnitude > infinity_bits) {
    return nan_bits;
  }
  if (magnitude == infinity_bits || magnitude == 0u) {
    return magnitude;
  }
  let top = significand_of(magnitude);
  // 25 or 26 bits, of which 24 are kept; fewer below the smallest normal.
  let quotient = (top.value << 8u) / 127u;
  let rest = (top.value << 8u) % 127u;
  let spare = select(1, 2, quotient >= 0x2000000u);
  let exponent = top.exponent + spare - 8;
  let kept = shifted_even(quotient, u32(spare + max(0, 1 - exponent)), rest);
  return (u32(max(exponent, 1) - 1) << 23u) + kept;
}

// x / step, to the nearest whole number, ties to even, as 8 bits.
fn stored_bits(bits: u32, step: u32) -> u32 {
  let magnitude = magnitude_of(bits);
  if (step == 0u || step >= infinity_bits || magnitude == 0u) {
    return 0u;
  }
  let over = significand_of(magnitude);
  let under = significand_of(step);
  let apart = over.exponent - under.exponent;
  var whole = 127u;
  if (apart < -1) {
    whole = 0u;
  } else if (apart < 8) {
    let dividend = over.value << u32(max(apart, 0));
    let divisor = under.value << u32(max(-apart, 0));
    let quotient = dividend / divisor;
    let twice = 2u * (dividend - quotient * divisor);
    whole = min(127u, quotient + select(0u, 1u, twice > divisor || (twice == divisor && (quotient & 1u) == 1u)));
  }
  return select(whole, (256u - whole) & 0xffu, bits != magnitude);
}
// #end

// value / 2^shift to the nearest whole number, ties to even; a tie with something behind it goes up. `shift` is at least 1.
fn shifted_even(value: u32, shift: u32, behind: u32) -> u32 {
  if (shift > 31u) {
    return 0u;
  }
  let whole = value >> shift;
  let rest = value & ((1u << shift) - 1u);
  let half = 1u << (shift - 1u);
  return whole + select(0u, 1u, rest > half || (rest == half && (behind != 0u || (whole & 1u) == 1u)));
}
// #end
