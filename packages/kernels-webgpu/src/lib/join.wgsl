// Attention states of one row into one: out = sum_s w_s values_s / sum_s w_s size_s, w_s = exp(top_s - top). Sums are in one
// order, whatever the device does: each group of threads its states in turn, then the groups. What a state is, the including
// file says: state_key, state_size, state_value. Key 0 is an empty state, whose values are not used.
override workgroup_threads: u32 = 128u;
// Of a workgroup; its other threads take other states, each every join_groups-th.
override join_columns: u32 = 32u;
const join_groups: u32 = workgroup_threads / join_columns;
// For sums: so many of a thread's neighbours first.
const join_fan: u32 = 8u;

var<workgroup> join_top: atomic<u32>;
var<workgroup> join_shares: array<f32, workgroup_threads>;
var<workgroup> join_sums: array<f32, workgroup_threads>;

struct Joined {
  top: u32,
  total: f32,
}

// The largest key and the sum of the sizes, `more` being one more logit without values.
fn join_sizes(row: u32, count: u32, more: u32, thread: u32) -> Joined {
  var key = more;
  for (var s = thread; s < count; s += workgroup_threads) {
    key = max(key, state_key(row, s));
  }
  // The row before is done with.
  workgroupBarrier();
  if (thread == 0u) {
    atomicStore(&join_top, 0u);
  }
  workgroupBarrier();
  atomicMax(&join_top, key);
  workgroupBarrier();
  let top = atomicLoad(&join_top);
  var sum = select(0.0, weights_of(more, top), thread == 0u);
  for (var s = thread; s < count; s += workgroup_threads) {
    let key = state_key(row, s);
    if (key != 0u) {
      sum = fma(weights_of(key, top), state_size(row, s), sum);
    }
  }
  join_sums[thread] = sum;
  workgroupBarrier();
  if (thread % join_fan == 0u) {
    for (var i = 1u; i < join_fan; i++) {
      sum += join_sums[thread + i];
    }
    join_sums[thread] = sum;
  }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < workgroup_threads; i += join_fan) {
    total += join_sums[i];
  }
  return Joined(top, total);
}

// A column of the result, as bits: to be called by all threads together. Threads below join_columns have the answer.
fn join_column(row: u32, count: u32, sizes: Joined, column: u32, columns: u32, thread: u32) -> u32 {
  var sum = 0.0;
  for (var first = 0u; first < count; first += workgroup_threads) {
    workgroupBarrier();
    var share = -1.0;
    if (first + thread < count) {
      let key = state_key(row, first + thread);
      share = select(weights_of(key, sizes.top), -1.0, key == 0u);
    }
    join_shares[thread] = share;
    workgroupBarrier();
    let here = select(0u, min(workgroup_threads, count - first), column < columns);
    for (var s = thread / join_columns; s < here; s += join_groups) {
      // Loaded in any case, so that loads need not wait. What an empty state holds counts for nothing, NaN included.
      let value = state_value(row, first + s, column);
      sum = select(sum, fma(join_shares[s], value, sum), join_shares[s] >= 0.0);
    }
  }
  workgroupBarrier();
  join_sums[thread] = sum;
  workgroupBarrier();
  sum = 0.0;
  for (var group = 0u; group < join_groups; group++) {
    sum += join_sums[group * join_columns + thread % join_columns];
  }
  if (sizes.top == invalid_key) {
    return nan_bits;
  }
  return select(bitcast<u32>(sum / sizes.total), 0u, sizes.top == 0u);
}

fn join_lse(sizes: Joined) -> u32 {
  if (sizes.top == invalid_key) {
    return nan_bits;
  }
  return select(bitcast<u32>(logits_of(sizes.top) + log(sizes.total)), infinity_bits | sign_bit, sizes.top == 0u);
}
