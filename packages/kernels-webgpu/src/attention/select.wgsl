// attention/select: the granules that score best, as ascending lists; first and last ones forced. A workgroup a list.
// Scores become keys that order as they do (0 for a NaN), anew at each pass: they are in the cache. Four rounds of a histogram
// of 8-bit digits find the key of the last granule that is listed and how many of its equals are. Then each thread has a
// stretch of granules, counts what it lists of them, and writes behind the threads before it. Sums of pooled heads are f32 in
// the heads' order; NaN and infinities among them are told by their bits. Bound by latency.
override workgroup_threads: u32 = 128u;

struct Uniforms {
  params: AttentionSelectParams,
}
struct Notes {
  bad: array<atomic<u32>, 64>,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> scores: array<u32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read_write> selected: array<u32>;
@group(0) @binding(4) var<storage, read_write> counts: array<u32>;
@group(0) @binding(5) var<storage, read_write> notes: Notes;

var<workgroup> histogram: array<atomic<u32>, 256>;
// Of each thread's stretch: keys above the last one listed, and keys like it.
var<workgroup> above: array<u32, workgroup_threads>;
var<workgroup> equals: array<u32, workgroup_threads>;

fn key_of(row: u32, granule: u32) -> u32 {
  let params = uniforms.params;
  let b = row / params.lists;
  if (params.lists == params.heads) {
    return key_of_bits(scores[row * params.granules + granule]);
  }
  var sum = 0.0;
  var nans = false;
  var highs = false;
  var lows = false;
  for (var h = 0u; h < params.heads; h++) {
    let bits = scores[(b * params.heads + h) * params.granules + granule];
    let magnitude = magnitude_of(bits);
    nans = nans || magnitude > infinity_bits;
    highs = highs || bits == infinity_bits;
    lows = lows || bits == (infinity_bits | sign_bit);
    if (magnitude < infinity_bits) {
      sum += bitcast<f32>(bits);
    }
  }
  if (nans || (highs && lows)) {
    return 0u;
  }
  if (highs || lows) {
    return key_of_bits(select(infinity_bits | sign_bit, infinity_bits, highs));
  }
  return key_of_bits(bitcast<u32>(sum));
}

fn key_of_bits(bits: u32) -> u32 {
  return select(order_key(bits), 0u, magnitude_of(bits) > infinity_bits);
}

@compute @workgroup_size(workgroup_threads)
fn list_granules(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let params = uniforms.params;
  for (var row = group.x; row < params.batch * params.lists; row += groups.x) {
    let b = row / params.lists;
    var length = lengths[b];
    let good = length <= params.granules * params.granularity;
    if (!good) {
      if (thread == 0u) {
        atomicMax(&notes.bad[0], ~b);
      }
      length = 0u;
    }
    let all = (length + params.granularity - 1u) / params.granularity;
    let total = min(select(min(params.budget, params.k), params.k, params.budget == 0u), all);
    let begun = (length - min(params.recent, length)) / params.granularity;
    let last = select(min(total, all - begun), 0u, params.recent == 0u);
    let first = min(total - last, (min(params.sink, length) + params.granularity - 1u) / params.granularity);
    let end = all - last;
    let wanted = total - first - last;
    let out = row * params.k;

    var prefix = 0u;
    var mask = 0u;
    var left = wanted;
    for (var round = 0u; round < 4u; round++) {
      let shift = 24u - 8u * round;
      workgroupBarrier();
      for (var i = thread; i < 256u; i += workgroup_threads) {
        atomicStore(&histogram[i], 0u);
      }
      workgroupBarrier();
      for (var i = first + thread; i < end; i += workgroup_threads) {
        let key = key_of(row, i);
        if ((key & mask) == prefix) {
          atomicAdd(&histogram[(key >> shift) & 255u], 1u);
        }
      }
      workgroupBarrier();
      // Every thread finds the same digit.
      var digit = 255u;
      for (; digit > 0u; digit--) {
        let held = atomicLoad(&histogram[digit]);
        if (held >= left) {
          break;
        }
        left -= held;
      }
      prefix |= digit << shift;
      mask |= 255u << shift;
    }

    let each = (end - first + workgroup_threads - 1u) / workgroup_threads;
    let start = min(first + thread * each, end);
    let to = min(start + each, end);
    var more = 0u;
    var same = 0u;
    for (var i = start; i < to; i++) {
      let key = key_of(row, i);
      more += u32(key > prefix);
      same += u32(key == prefix);
    }
    above[thread] = more;
    equals[thread] = same;
    workgroupBarrier();
    var place = out + first;
    var taken = 0u;
    for (var other = 0u; other < thread; other++) {
      place += above[other];
      taken += equals[other];
    }
    taken = min(taken, left);
    place += taken;
    if (wanted > 0u) {
      for (var i = start; i < to; i++) {
        let key = key_of(row, i);
        let like = key == prefix && taken < left;
        if (key > prefix || like) {
          selected[place] = i;
          place++;
          taken += u32(like);
        }
      }
    }
    for (var i = thread; i < params.k; i += workgroup_threads) {
      if (i < first) {
        selected[out + i] = i;
      } else if (i >= total) {
        selected[out + i] = 0xffffffffu;
      } else if (i >= first + wanted) {
        selected[out + i] = end + i - first - wanted;
      }
    }
    if (thread == 0u) {
      counts[row] = total;
    }
    workgroupBarrier();
  }
}
