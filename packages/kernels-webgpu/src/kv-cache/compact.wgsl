// kv-cache/compact: token kept[i] of a head becomes its token i, in place, for ascending i.
// Pass `check`: a workgroup a head compares all that it names, a token a thread; the first that is bad is the fault, and the
// head is left as it is. It notes which row moves where. Passes `take` and `put`, a thread a word, bring a stretch of
// every head's rows to scratch, and from there to their places: in one pass, rows would be overwritten before others have
// read them. As kept[i] >= i, later stretches lie behind all that was written. Caches beyond one binding come in windows of
// pages. Rows that share words with their neighbours are put by atomics, which leave the others. Bound by memory.
override workgroup_threads: u32 = 128u;
const nobody: u32 = 0xffffffffu;
const faults_words: u32 = 64u;

struct Window {
  // Of the rows bound here: the number of the first, and how many. A page has kv_heads * page_size.
  first_row: u32,
  rows: u32,
  // Of the heads and of the kept tokens of this stretch: the first, and how many.
  first_list: u32,
  lists: u32,
  first_kept: u32,
  kept: u32,
}

struct Uniforms {
  params: KvCacheCompactParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// Behind the faults, of each token that each head keeps: where its row is, and where it goes; nobody behind the last one.
fn moves_at(list: u32) -> u32 {
  return faults_words + 2u * list * uniforms.params.max_kept;
}

// #if checks
@group(0) @binding(1) var<storage, read> page_table: array<u32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read> kept: array<u32>;
@group(0) @binding(4) var<storage, read> kept_count: array<u32>;
@group(0) @binding(5) var<storage, read_write> work: array<atomic<u32>>;
const page_table_port: u32 = 0u;
const lengths_port: u32 = 1u;
const kept_port: u32 = 2u;
const kept_count_port: u32 = 3u;
// The first bad one of a head.
var<workgroup> bad: atomic<u32>;

// Where a token's page stands in the table.
fn entry_of(sequence: u32, token: u32) -> u32 {
  return sequence * uniforms.params.max_pages + token / uniforms.params.page_size;
}

fn row_of(page: u32, head: u32, token: u32) -> u32 {
  let size = uniforms.params.page_size;
  return (page * uniforms.params.kv_heads + head) * size + token % size;
}

fn fault(port: u32, index: u32) {
  atomicMax(&work[port], ~index);
}

@compute @workgroup_size(workgroup_threads)
fn check(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let heads = uniforms.params.kv_heads;
  let most = uniforms.params.max_kept;
  let pages = uniforms.params.pages;
  for (var list = group.x; list < uniforms.params.batch * heads; list += groups.x) {
    let sequence = list / heads;
    let length = lengths[sequence];
    let has_length = length <= uniforms.params.max_pages * uniforms.params.page_size;
    let has_count = kept_count[list] <= most;
    let count = select(0u, kept_count[list], has_length && has_count);
    // The head before is done with.
    workgroupBarrier();
    if (thread == 0u) {
      atomicStore(&bad, nobody);
    }
    workgroupBarrier();
    if (thread == 0u && !has_length) {
      fault(lengths_port, sequence);
    } else if (thread == 0u && !has_count) {
      fault(kept_count_port, list);
    }
    for (var i = thread; i < most; i += workgroup_threads) {
      var source = nobody;
      var target_row = nobody;
      if (i < count) {
        let token = kept[list * most + i];
        // A token below 0 is beyond every length.
        var sound = token < length && (i == 0u || token > kept[list * most + i - 1u]) && token >= i;
        if (sound) {
          let source_page = page_table[entry_of(sequence, token)];
          let target_page = page_table[entry_of(sequence, i)];
          sound = source_page < pages && target_page < pages;
          source = row_of(source_page, list % heads, token);
          target_row = row_of(target_page, list % heads, i);
        }
        if (!sound) {
          atomicMin(&bad, i);
        }
      }
      atomicStore(&work[moves_at(list) + 2u * i], source);
      atomicStore(&work[moves_at(list) + 2u * i + 1u], target_row);
    }
    workgroupBarrier();
    let first_bad = atomicLoad(&bad);
    if (first_bad != nobody) {
      for (var i = thread; i < count; i += workgroup_threads) {
        atomicStore(&work[moves_at(list) + 2u * i], nobody);
        atomicStore(&work[moves_at(list) + 2u * i + 1u], nobody);
      }
      if (thread == 0u) {
        report(list, sequence, length, first_bad);
      }
    }
  }
}

// In the order of the reference: the token, then its place's page, then its own.
fn report(list: u32, sequence: u32, length: u32, i: u32) {
  let at = list * uniforms.params.max_kept + i;
  let token = kept[at];
  if (token >= length || (i > 0u && token <= kept[at - 1u])) {
    fault(kept_port, at);
  } else if (page_table[entry_of(sequence, i)] >= uniforms.params.pages) {
    fault(page_table_port, entry_of(sequence, i));
  } else {
    fault(page_table_port, entry_of(sequence, token));
  }
}
// #else
@group(0) @binding(1) var<storage, read> work: array<u32>;

// Bytes of a row of keys, of values, and of a scale.
override key_bytes: u32 = 4u;
override value_bytes: u32 = 4u;
override scale_bytes: u32 = 0u;
const key_words: u32 = (key_bytes + 3u) / 4u;
const value_words: u32 = (value_bytes + 3u) / 4u;
const scale_words: u32 = scale_bytes / 4u;
const moved_words: u32 = key_words + value_words + 2u * scale_words;

// #if takes
@group(0) @binding(2) var<storage, read> key_pages: array<u32>;
@group(0) @binding(3) var<storage, read> value_pages: array<u32>;
// #if scaled
@group(0) @binding(4) var<storage, read> key_scale: array<u32>;
@group(0) @binding(5) var<storage, read> value_scale: array<u32>;
// #end
@group(0) @binding(6) var<storage, read_write> moved: array<u32>;

// Word i of what begins within a word; what lies behind its end is left in.
fn joined_words(low: u32, high: u32, place: u32) -> u32 {
  let shift = 8u * place;
  return (low >> shift) | select(0u, high << ((32u - shift) & 31u), shift > 0u);
}

@compute @workgroup_size(workgroup_threads)
fn take(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = (group.y * groups.x + group.x) * workgroup_threads + thread;
  let word = index % moved_words;
  let moving = index / moved_words;
  let list = moving / uniforms.window.kept;
  if (list >= uniforms.window.lists) {
    return;
  }
  let i = uniforms.window.first_kept + moving % uniforms.window.kept;
  let row = work[moves_at(uniforms.window.first_list + list) + 2u * i] - uniforms.window.first_row;
  if (row >= uniforms.window.rows) {
    return;
  }
  if (word < key_words) {
    let start = row * key_bytes + 4u * word;
    moved[index] = joined_words(key_pages[start / 4u], key_pages[start / 4u + 1u], start % 4u);
  } else if (word < key_words + value_words) {
    let start = row * value_bytes + 4u * (word - key_words);
    moved[index] = joined_words(value_pages[start / 4u], value_pages[start / 4u + 1u], start % 4u);
  }
// #if scaled
  if (word == key_words + value_words) {
    moved[index] = key_scale[row];
  } else if (word > key_words + value_words) {
    moved[index] = value_scale[row];
  }
// #end
}
// #else
@group(0) @binding(2) var<storage, read_write> key_pages: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> value_pages: array<atomic<u32>>;
// #if scaled
@group(0) @binding(4) var<storage, read_write> key_scale: array<u32>;
@group(0) @binding(5) var<storage, read_write> value_scale: array<u32>;
// #end
@group(0) @binding(6) var<storage, read> moved: array<u32>;

// A row that starts within a word may take one more.
const key_places: u32 = key_words + select(1u, 0u, key_bytes % 4u == 0u);
const value_places: u32 = value_words + select(1u, 0u, value_bytes % 4u == 0u);
const put_words: u32 = key_places + value_places + 2u * scale_words;

// What a word of the cache gets of a row of `bytes` from `start` on, which lies in scratch from `source` on.
struct Part {
  bits: u32,
  mask: u32,
}
fn part_of(source: u32, start: u32, bytes: u32, word: u32) -> Part {
  let front = start % 4u;
  // Bytes of the row that lie before this word, and in it.
  let before = select(4u * word - front, 0u, word == 0u);
  if (before >= bytes) {
    return Part(0u, 0u);
  }
  let skipped = select(0u, front, word == 0u);
  let end = min(4u, skipped + bytes - before);
  let mask = select(0xffffffffu, (1u << (8u * (end & 3u))) - 1u, end < 4u) & (0xffffffffu << (8u * skipped));
  let at = source + before / 4u;
  let shift = 8u * (before % 4u);
  var bits = moved[at] << (8u * skipped);
  if (shift > 0u) {
    bits = (moved[at] >> shift) | (moved[at + 1u] << (32u - shift));
  }
  return Part(bits & mask, mask);
}

@compute @workgroup_size(workgroup_threads)
fn put(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = (group.y * groups.x + group.x) * workgroup_threads + thread;
  let word = index % put_words;
  let moving = index / put_words;
  let list = moving / uniforms.window.kept;
  if (list >= uniforms.window.lists) {
    return;
  }
  let i = uniforms.window.first_kept + moving % uniforms.window.kept;
  let row = work[moves_at(uniforms.window.first_list + list) + 2u * i + 1u] - uniforms.window.first_row;
  if (row >= uniforms.window.rows) {
    return;
  }
  let source = moving * moved_words;
  if (word < key_places) {
    let part = part_of(source, row * key_bytes, key_bytes, word);
    let at = row * key_bytes / 4u + word;
    if (part.mask == 0xffffffffu) {
      atomicStore(&key_pages[at], part.bits);
    } else if (part.mask != 0u) {
      atomicAnd(&key_pages[at], ~part.mask);
      atomicOr(&key_pages[at], part.bits);
    }
  } else if (word < key_places + value_places) {
    let part = part_of(source + key_words, row * value_bytes, value_bytes, word - key_places);
    let at = row * value_bytes / 4u + word - key_places;
    if (part.mask == 0xffffffffu) {
      atomicStore(&value_pages[at], part.bits);
    } else if (part.mask != 0u) {
      atomicAnd(&value_pages[at], ~part.mask);
      atomicOr(&value_pages[at], part.bits);
    }
  }
// #if scaled
  if (word == key_places + value_places) {
    key_scale[row] = moved[source + key_words + value_words];
  } else if (word > key_places + value_places) {
    value_scale[row] = moved[source + key_words + value_words + 1u];
  }
// #end
}
// #end
// #end
