// The best k of a stream, for top_lists streams side by side in workgroup memory. Order: larger key first, then lower id.
// Newcomers above the floor (the k-th key so far) are appended; when a list could overflow, all are sorted and cut to k.
// Key 0 is no entry. Ids must come in such an order that of equal keys a later one never belongs before an earlier one:
// a floor may then turn away equals. Sorting orders by (key, id), so the order of the appends does not show.
override workgroup_threads: u32 = 128u;
override top_lists: u32 = 1u;
// At least k + workgroup_threads: every thread may append one before the next check.
override top_capacity: u32 = 256u;

var<workgroup> top_keys: array<u32, top_lists * top_capacity>;
var<workgroup> top_ids: array<u32, top_lists * top_capacity>;
var<workgroup> top_counts: array<atomic<u32>, top_lists>;
var<workgroup> top_floors: array<u32, top_lists>;
var<workgroup> top_longest: u32;

fn top_start(thread: u32) {
  if (thread < top_lists) {
    atomicStore(&top_counts[thread], 0u);
    top_floors[thread] = 0u;
  }
  workgroupBarrier();
}

// To be called by all threads together; key 0 appends nothing.
fn top_append(list: u32, key: u32, id: u32) {
  let wanted = key > top_floors[list];
// #if subgroups
  // One atomic a subgroup instead of one a thread.
  let before = subgroupExclusiveAdd(select(0u, 1u, wanted));
  let together = subgroupAdd(select(0u, 1u, wanted));
  var first = 0u;
  if (subgroupElect()) {
    first = atomicAdd(&top_counts[list], together);
  }
  let slot = subgroupBroadcastFirst(first) + before;
// #else
  var slot = 0u;
  if (wanted) {
    slot = atomicAdd(&top_counts[list], 1u);
  }
// #end
  if (wanted) {
    top_keys[list * top_capacity + slot] = key;
    top_ids[list * top_capacity + slot] = id;
  }
}

fn top_measure(thread: u32) -> u32 {
  workgroupBarrier();
  if (thread == 0u) {
    var longest = 0u;
    for (var list = 0u; list < top_lists; list++) {
      longest = max(longest, atomicLoad(&top_counts[list]));
    }
    top_longest = longest;
  }
  return workgroupUniformLoad(&top_longest);
}

// Before the next round of appends.
fn top_make_room(k: u32, thread: u32) {
  let longest = top_measure(thread);
  if (longest + workgroup_threads > top_capacity) {
    top_sort(longest, k, thread);
  }
}

// After the last: entries 0 to top_count - 1 of each list are the best, in order.
fn top_finish(k: u32, thread: u32) {
  top_sort(top_measure(thread), k, thread);
}

fn top_count(list: u32) -> u32 {
  return atomicLoad(&top_counts[list]);
}

// Entry i of a list, or key 0 behind its end.
fn top_entry(list: u32, i: u32) -> vec2u {
  if (i >= top_count(list)) {
    return vec2u(0u, 0xffffffffu);
  }
  return vec2u(top_keys[list * top_capacity + i], top_ids[list * top_capacity + i]);
}

// Bitonic, in the form whose comparisons all point one way: what lies beyond `longest` counts as worst and is left out.
fn top_sort(longest: u32, k: u32, thread: u32) {
  for (var list = 0u; list < top_lists; list++) {
    for (var i = top_count(list) + thread; i < longest; i += workgroup_threads) {
      top_keys[list * top_capacity + i] = 0u;
      top_ids[list * top_capacity + i] = 0xffffffffu;
    }
  }
  workgroupBarrier();
  let levels = select(32u - countLeadingZeros(longest - 1u), 0u, longest < 2u);
  for (var level = 1u; level <= levels; level++) {
    top_exchange(longest, levels, level - 1u, true, thread);
    for (var step = level - 1u; step > 0u; step--) {
      top_exchange(longest, levels, step - 1u, false, thread);
    }
  }
  if (thread < top_lists) {
    let count = min(top_count(thread), k);
    atomicStore(&top_counts[thread], count);
    if (count == k) {
      top_floors[thread] = top_keys[thread * top_capacity + k - 1u];
    }
  }
  workgroupBarrier();
}

// Compares entries 2^log_half apart, or (flip) mirrored in blocks of twice that; the better one moves to the front.
fn top_exchange(longest: u32, levels: u32, log_half: u32, flip: bool, thread: u32) {
  let half = 1u << log_half;
  let log_pairs = levels - 1u;
  for (var i = thread; i < (top_lists << log_pairs); i += workgroup_threads) {
    let list = (i >> log_pairs) * top_capacity;
    let pair = i & ((1u << log_pairs) - 1u);
    let block = (pair >> log_half) << (log_half + 1u);
    let place = pair & (half - 1u);
    let low = block + place;
    let high = block + select(half + place, 2u * half - 1u - place, flip);
    if (high < longest) {
      let a = vec2u(top_keys[list + low], top_ids[list + low]);
      let b = vec2u(top_keys[list + high], top_ids[list + high]);
      if (b.x > a.x || (b.x == a.x && b.y < a.y)) {
        top_keys[list + low] = b.x;
        top_ids[list + low] = b.y;
        top_keys[list + high] = a.x;
        top_ids[list + high] = a.y;
      }
    }
  }
  workgroupBarrier();
}
