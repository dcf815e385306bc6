// logits/logprob: ln p of a target, entropy, the k best, KL(p || q), with p = softmax(logits), q = softmax(against).
//
// A row is a task: a pass for the largest, then one for all sums, with the row in the second-level cache up to 64k tokens.
// Sums of exp(x), exp(x) x and exp(x) (x - y), relative to the largest, run over blocks of 256 in f32 and are joined in
// f64. The k best are kept in order; a vector is looked into where it has a logit above the last of them. Bound by the
// exponentials.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/exp.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kBlock = 256;
// Below this, relative to the largest, a token counts as none in sums of p times something.
constexpr float kFaintest = -87;

// A vector from `at` on; `fill` behind the end.
inline f32v part(const float* row, int64_t at, int64_t end, float fill) {
  if (at + kLanes <= end) return load(row + at);
  float rest[kLanes];
  for (int j = 0; j < kLanes; j++) rest[j] = at + j < end ? row[at + j] : fill;
  return load(rest);
}

// NaNs are passed over.
float largest_of(const float* row, int64_t n) {
  f32v most = splat(-INFINITY);
  for (int64_t i = 0; i < n; i += kLanes) most = larger(part(row, i, n, -INFINITY), most);
  float lanes[kLanes];
  store(lanes, most);
  float best = lanes[0];
  for (int j = 1; j < kLanes; j++) best = lanes[j] > best ? lanes[j] : best;
  return best;
}

struct Sums {
  double weight = 0, mean = 0, ratio = 0;  // of exp(x), exp(x) x, exp(x) (x - y)
};

Sums sums_of(const float* row, const float* other, int64_t n, float largest, float other_largest) {
  const float base = largest == -INFINITY ? 0 : largest, other_base = other_largest == -INFINITY ? 0 : other_largest;
  Sums total;
  for (int64_t block = 0; block < n; block += kBlock) {
    const int64_t end = least(block + kBlock, n);
    f32v weights = zero(), means = zero(), ratios = zero();
    for (int64_t i = block; i < end; i += kLanes) {
      const f32v x = sub(part(row, i, end, -INFINITY), splat(base)), weight = exp(x);
      weights = add(weights, weight);
      means = add(means, select_inside(x, kFaintest, INFINITY, mul(weight, x), zero()));
      if (!other) continue;
      const f32v y = sub(part(other, i, end, 0), splat(other_base));
      ratios = add(ratios, select_inside(x, kFaintest, INFINITY, mul(weight, sub(x, y)), zero()));
    }
    total.weight += double(reduce_add(weights));
    total.mean += double(reduce_add(means));
    if (other) total.ratio += double(reduce_add(ratios));
  }
  return total;
}

// The k best by (logit, lower id), in order; returns how many there are.
int64_t find_best(const float* row, int64_t n, int64_t k, int32_t* ids, float* values) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    // Bit j: not (last < x[j]).
    if (count == k && i + kLanes <= n && not_less(splat(values[k - 1]), load(row + i)) == (1u << kLanes) - 1) continue;
    for (int64_t j = i; j < least(i + kLanes, n); j++) {
      const float x = row[j];
      if (is_nan(x) || (count == k && !(x > values[k - 1]))) continue;
      int64_t at = count < k ? count++ : k - 1;
      for (; at > 0 && values[at - 1] < x; at--) values[at] = values[at - 1], ids[at] = ids[at - 1];
      values[at] = x;
      ids[at] = int32_t(j);
    }
  }
  return count;
}

void run_row(const logits_logprob_params& p, int64_t t, Status& status) {
  const float* const row = p.logits + t * p.vocab;
  const float* const other = p.against ? p.against + t * p.vocab : nullptr;
  const float largest = largest_of(row, p.vocab), other_largest = other ? largest_of(other, p.vocab) : 0;
  const Sums sums = sums_of(row, other, p.vocab, largest, other_largest);
  // Relative to the largest; NaN where there is no distribution.
  const double log_sum = ln(sums.weight);
  const int32_t target = int32_t(read_once(reinterpret_cast<const uint32_t*>(p.targets) + t));
  const auto log_p = [&](float x) { return float(double(x) - double(largest) - log_sum); };
  if (target < -1 || target >= p.vocab) fail(status, logits_logprob_port_targets, t, target);
  p.chosen[t] = target >= 0 && target < p.vocab ? log_p(row[target]) : 0;
  p.entropy[t] = float(log_sum - sums.mean / sums.weight);
  if (p.kl) p.kl[t] = float(sums.ratio / sums.weight - log_sum + ln(sums_of(other, nullptr, p.vocab, other_largest, 0).weight));
  if (p.k == 0) return;
  int32_t* const ids = p.ids + t * p.k;
  float* const best = p.best + t * p.k;
  const int64_t count = find_best(row, p.vocab, p.k, ids, best);
  for (int64_t i = 0; i < p.k; i++) {
    if (i < count) best[i] = log_p(best[i]);
    else ids[i] = -1, best[i] = -INFINITY;
  }
}

}  // namespace

void logits_logprob_plan(const logits_logprob_params& p, int, KernelPlan& plan) {
  plan.name = "rows";
  plan.phases = p.tokens > 0;
  plan.tasks[0] = p.tokens;
}

void logits_logprob_task(const logits_logprob_params& p, const Task& task) { run_row(p, task.index, *task.status); }

}  // namespace HOTSET_ISA
}  // namespace hotset
