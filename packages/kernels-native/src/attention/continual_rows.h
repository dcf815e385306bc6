// Rows of continual attention: sums of exp(logit) and of values so weighted, relative to a whole power of two, so that rows
// are rescaled without rounding and a pair of query and key has the same weight whenever it is met.
#pragma once
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

// Where a stream stands when a token arrives.
struct Turn {
  int64_t slot, held, oldest;
  bool full;
};

static inline bool turn_of(int64_t steps, int64_t window, Turn& turn) {
  if (steps < 0 || steps >= 2 * window) return false;
  turn.full = steps >= window;
  turn.slot = steps % window;
  turn.held = turn.full ? window : steps + 1;
  turn.oldest = turn.full ? (turn.slot + 1) % window : 0;
  return true;
}

// Counts the streams' steps, those in range.
static inline void count_steps(int32_t* steps, int64_t streams, int64_t window) {
  for (int64_t stream = 0; stream < streams; stream++) {
    const int64_t now = steps[stream];
    if (now >= 0 && now < 2 * window) steps[stream] = int32_t(now + 1 == 2 * window ? window : now + 1);
  }
}

// One order for every pair, so that its weight has the same bits wherever it is computed.
static inline float row_dot(const float* a, const float* b, int64_t dim) {
  f32v even = zero(), odd = zero();
  int64_t i = 0;
  for (; i + 2 * kLanes <= dim; i += 2 * kLanes) {
    even = madd(load(a + i), load(b + i), even);
    odd = madd(load(a + i + kLanes), load(b + i + kLanes), odd);
  }
  for (; i < dim; i += kLanes) {
    if (i + kLanes <= dim) {
      even = madd(load(a + i), load(b + i), even);
      continue;
    }
    alignas(64) float x[kLanes] = {}, y[kLanes] = {};
    memcpy(x, a + i, size_t(dim - i) * sizeof(float));
    memcpy(y, b + i, size_t(dim - i) * sizeof(float));
    odd = madd(load(x), load(y), odd);
  }
  return reduce_add(add(even, odd));
}

// exp(logit) = part 2^power; NaN where the logit is not finite. As exp() of simd/exp.h, with the two kept apart.
static inline f32v split_exp(f32v logit, f32v& power) {
  const f32v magic = splat(12582912.0f);
  const f32v turns = smaller(splat(2097152.0f), larger(splat(-2097152.0f), mul(logit, splat(1.44269504f))));
  power = sub(add(turns, magic), magic);
  f32v r = madd(power, splat(2.12194440e-4f), madd(power, splat(-0.693359375f), logit));
  // Beyond 2^14 a logit is less exact than r; its weight stays a sound number.
  r = smaller(splat(0.36f), larger(splat(-0.36f), r));
  f32v p = madd(splat(0.0013933652f), r, splat(0.0083631817f));
  p = madd(p, r, splat(0.041666467f));
  p = madd(p, r, splat(0.16666576f));
  p = madd(p, r, splat(0.5f));
  return add(madd(mul(p, r), r, add(r, splat(1.0f))), mul(logit, zero()));
}

// 2^power, 0 below the smallest normal number.
static inline f32v scale_of(f32v power) { return power_of_two(add(smaller(larger(power, splat(-127.0f)), splat(127.0f)), splat(12582912.0f))); }

struct RowSum {
  float power, sum;
};

// The softmax of a query over `held` keys, unnormalised. `logits` has room for them in whole vectors, twice.
static inline RowSum exact_row(const float* query, const float* keys, const float* values, int64_t held, int64_t dim, float scale, float* logits, float* weighted) {
  const int64_t padded = round_up(held, kLanes);
  float* const powers = logits + padded;
  for (int64_t t = 0; t < held; t++) logits[t] = row_dot(query, keys + t * dim, dim) * scale;
  for (int64_t t = held; t < padded; t++) logits[t] = logits[0];
  f32v top = splat(-4194304.0f);
  for (int64_t t = 0; t < held; t += kLanes) {
    f32v power;
    store(logits + t, split_exp(load(logits + t), power));
    store(powers + t, power);
    // NaNs are never the largest; they come in through their parts.
    top = larger(power, top);
  }
  alignas(64) float lanes[kLanes];
  store(lanes, top);
  float power = lanes[0];
  for (int i = 1; i < kLanes; i++) power = lanes[i] > power ? lanes[i] : power;
  for (int64_t t = 0; t < held; t += kLanes) store(logits + t, mul(load(logits + t), scale_of(sub(load(powers + t), splat(power)))));
  float sum = 0;
  for (int64_t t = 0; t < held; t++) sum += logits[t];
  int64_t i = 0;
  for (; i + 4 * kLanes <= dim; i += 4 * kLanes) {
    f32v s[4] = {zero(), zero(), zero(), zero()};
    for (int64_t t = 0; t < held; t++)
      for (int j = 0; j < 4; j++) s[j] = madd(splat(logits[t]), load(values + t * dim + i + j * kLanes), s[j]);
    for (int j = 0; j < 4; j++) store(weighted + i + j * kLanes, s[j]);
  }
  for (; i + kLanes <= dim; i += kLanes) {
    f32v s = zero();
    for (int64_t t = 0; t < held; t++) s = madd(splat(logits[t]), load(values + t * dim + i), s);
    store(weighted + i, s);
  }
  for (; i < dim; i++) {
    float s = 0;
    for (int64_t t = 0; t < held; t++) s += logits[t] * values[t * dim + i];
    weighted[i] = s;
  }
  return {power, sum};
}

// out = weighted / sum, with NaN for what is not finite; whether all of it was.
static inline bool divide_row(const float* weighted, float sum, int64_t dim, float* out) {
  bool sound = true;
  for (int64_t i = 0; i < dim; i++) {
    out[i] = weighted[i] / sum;
    if (is_finite(out[i])) continue;
    out[i] = NAN;
    sound = false;
  }
  return sound;
}

}  // namespace HOTSET_ISA
}  // namespace hotset
