// Rows of continual attention: sums of exp(logit) and of values so weighted, relative to a whole power of two, so that rows
// are rescaled without rounding and a pair of query and key has the same weight whenever it is met.

// exp(logit) = part 2^power, of a logit that is finite.
struct Weight {
  power: f32,
  part: f32,
}
const least_power: f32 = -4194304.0;

fn split_exp(logit: f32) -> Weight {
  let power = round(clamp(logit * 1.44269504, -2097152.0, 2097152.0));
  let r = fma(power, 2.12194440e-4, fma(power, -0.693359375, logit));
  // Beyond 2^14 a logit is less exact than r; its weight stays a sound number.
  return Weight(power, exp(clamp(r, -0.36, 0.36)));
}

fn scale_of(power: f32) -> f32 {
  return power_of_two(i32(power));
}

// Where a stream stands when a token arrives, as pass `insert` leaves it: slot, tokens held, slot of the oldest, full.
fn turn_of(steps: u32, window: u32) -> vec4u {
  if (steps >= 2u * window) {
    return vec4u();
  }
  let full = steps >= window;
  return vec4u(steps % window, min(steps + 1u, window), select(0u, (steps + 1u) % window, full), select(0u, 1u, full));
}
fn steps_after(steps: u32, window: u32) -> u32 {
  return select(select(steps + 1u, window, steps + 1u == 2u * window), steps, steps >= 2u * window);
}

// #if rows
// One order for every pair; of a query and of a key of the ring.
fn ring_logit(query_at: u32, key_at: u32) -> f32 {
  let dim = uniforms.params.head_dim;
  var sums = vec4f();
  var i = 0u;
  for (; i + 4u <= dim; i += 4u) {
    let query = vec4f(query_value(query_at + i), query_value(query_at + i + 1u), query_value(query_at + i + 2u), query_value(query_at + i + 3u));
    let key = vec4f(key_ring[key_at + i], key_ring[key_at + i + 1u], key_ring[key_at + i + 2u], key_ring[key_at + i + 3u]);
    sums = fma(query, key, sums);
  }
  for (; i < dim; i++) {
    sums.x = fma(query_value(query_at + i), key_ring[key_at + i], sums.x);
  }
  return ((sums.x + sums.y) + (sums.z + sums.w)) * uniforms.params.scale;
}
// #end

// #if exact
var<workgroup> weights: array<f32, workgroup_threads>;
var<workgroup> powers: array<f32, workgroup_threads>;
// A logit, or a component, that is not finite.
var<workgroup> odd: atomic<u32>;

struct RowSum {
  power: f32,
  sum: f32,
  // All logits are finite; and all components.
  finite: bool,
  sound: bool,
}

// By a workgroup: the answer of a query over `held` keys of a ring, into `out` from `out_at` on; the weighted values pass through
// kept_value and keep_value. NaN stands for what is not finite.
fn exact_row(query_at: u32, ring_at: u32, held: u32, kept_at: u32, out_at: u32, thread: u32) -> RowSum {
  let dim = uniforms.params.head_dim;
  var power = least_power;
  var sum = 0.0;
  // The row before is done with.
  workgroupBarrier();
  if (thread == 0u) {
    atomicStore(&odd, 0u);
  }
  for (var start = 0u; start < held; start += workgroup_threads) {
    let count = min(workgroup_threads, held - start);
    workgroupBarrier();
    var weight = Weight(least_power, 0.0);
    if (thread < count) {
      let logit = ring_logit(query_at, ring_at + (start + thread) * dim);
      if (is_finite(logit)) {
        weight = split_exp(logit);
      } else {
        atomicStore(&odd, 1u);
      }
    }
    powers[thread] = weight.power;
    workgroupBarrier();
    var top = power;
    for (var i = 0u; i < count; i++) {
      top = max(top, powers[i]);
    }
    weights[thread] = weight.part * scale_of(weight.power - top);
    workgroupBarrier();
    let factor = scale_of(power - top);
    power = top;
    sum *= factor;
    for (var i = 0u; i < count; i++) {
      sum += weights[i];
    }
    for (var d = thread; d < dim; d += workgroup_threads) {
      var value = 0.0;
      if (start > 0u) {
        value = kept_value(kept_at + d) * factor;
      }
      for (var i = 0u; i < count; i++) {
        value = fma(weights[i], value_ring[ring_at + (start + i) * dim + d], value);
      }
      keep_value(kept_at + d, value);
    }
  }
  workgroupBarrier();
  let finite = atomicLoad(&odd) == 0u;
  workgroupBarrier();
  for (var d = thread; d < dim; d += workgroup_threads) {
    let value = kept_value(kept_at + d) / sum;
    let fine = finite && is_finite(value);
    if (!fine) {
      atomicStore(&odd, 1u);
    }
    out[out_at + d] = select(nan_bits, bitcast<u32>(value), fine);
  }
  workgroupBarrier();
  return RowSum(power, sum, finite, atomicLoad(&odd) == 0u);
}
// #end
