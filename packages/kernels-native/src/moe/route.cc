// moe/route: ids = top-k of z or s + bias, weights = scale s / (sum of the chosen s + 1e-20); s = softmax(z) or sigmoid(z).
//
// All f64 and in the reference's order of steps, so the bits are the same on every host; exponentials are taken 8 at a
// time, step by step, which compilers turn into vectors. The best are kept in a sorted list of topK, where an expert is
// put only if it beats the last. A task is 8192 logits. The exponentials bound it.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kTaskLogits = 8192;

int64_t task_tokens(const moe_route_params& p) { return most(1, kTaskLogits / p.experts); }
// z, s and what is compared, then the groups' worth: doubles; the chosen groups, and a mark for each.
int64_t slot_bytes(const moe_route_params& p) { return round_up((3 * p.experts + p.groups) * 8 + (p.kept_groups + p.groups) * 4, 64); }

// exp(x[i]) for 8 numbers of at most 0: the steps of canonical.ts, each for all 8, as vectors are.
void exponentials8(const double* x, double* out) {
  static const double factors[14] = {1.6059043836821613e-10, 2.08767569878681e-9, 2.505210838544172e-8, 2.755731922398589e-7, 2.7557319223985893e-6, 2.48015873015873e-5,
                                     1.984126984126984e-4, 1.3888888888888889e-3, 8.333333333333333e-3, 4.1666666666666664e-2, 1.6666666666666666e-1, 0.5, 1, 1};
  constexpr double kMagic = 6755399441055744;
  double biased[8], r[8], p[8];
  for (int i = 0; i < 8; i++) {
    biased[i] = x[i] * 1.4426950408889634 + kMagic;
    const double whole = biased[i] - kMagic;
    r[i] = x[i] - whole * 0.6931471803691238 - whole * 1.9082149292705877e-10;
    p[i] = factors[0];
  }
#pragma GCC unroll 13
  for (int j = 1; j < 14; j++)
    for (int i = 0; i < 8; i++) p[i] = p[i] * r[i] + factors[j];
  uint64_t bits[8];
  memcpy(bits, biased, sizeof bits);
  for (int i = 0; i < 8; i++) bits[i] = (bits[i] + 1023) << 52;
  double power[8];
  memcpy(power, bits, sizeof power);
  for (int i = 0; i < 8; i++) out[i] = p[i] * power[i];
  for (int i = 0; i < 8; i++)
    if (!(x[i] >= -708)) out[i] = 0;
}

void exponentials(const double* x, int64_t n, double* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) exponentials8(x + i, out + i);
  if (i == n) return;
  double rest[8] = {}, values[8];
  memcpy(rest, x + i, size_t(n - i) * sizeof(double));
  exponentials8(rest, values);
  memcpy(out + i, values, size_t(n - i) * sizeof(double));
}

// Puts from <= e < to into a list of the k best, sorted, of equals the lower number first. Returns how long it is then.
int64_t insert_best(const double* values, int64_t from, int64_t to, int64_t k, int32_t* list, int64_t length) {
  for (int64_t e = from; e < to; e++) {
    if (length == k && !(values[e] > values[list[k - 1]])) continue;
    int64_t at = length < k ? length++ : k - 1;
    for (; at > 0 && values[e] > values[list[at - 1]]; at--) list[at] = list[at - 1];
    list[at] = int32_t(e);
  }
  return length;
}

double or_least(double value) { return is_nan(value) ? -INFINITY : value; }

struct Route {
  const moe_route_params& p;
  double* const z;
  double* const s;
  double* const compared;
  double* const worth;
  int32_t* const kept;
  int32_t* const marks;

  Route(const moe_route_params& params, char* own)
      : p(params),
        z(reinterpret_cast<double*>(own)),
        s(z + p.experts),
        compared(s + p.experts),
        worth(compared + p.experts),
        kept(reinterpret_cast<int32_t*>(worth + p.groups)),
        marks(kept + p.kept_groups) {}

  void token(int64_t t) const {
    const float* const logits = p.logits + t * p.experts;
    bool nan = false;
    double largest = -INFINITY;
    for (int64_t e = 0; e < p.experts; e++) {
      nan |= is_nan(logits[e]);
      z[e] = or_least(double(logits[e]));
      if (z[e] > largest) largest = z[e];
    }
    if (p.score == moe_route_score_softmax) softmax(largest);
    else sigmoid();
    const double* values = z;
    if (p.bias) {
      for (int64_t e = 0; e < p.experts; e++) compared[e] = or_least(s[e] + double(p.bias[e]));
      values = compared;
    }
    int32_t* const ids = p.ids + t * p.top_k;
    float* const weights = p.weights + t * p.top_k;
    choose(values, ids);
    double sum = 0;
    for (int64_t k = 0; k < p.top_k; k++) sum += s[ids[k]];
    for (int64_t k = 0; k < p.top_k; k++) {
      const double share = p.renormalise ? s[ids[k]] / (sum + 1e-20) : s[ids[k]];
      weights[k] = nan ? NAN : float(share * double(p.scale));
    }
  }

  // Differences lie where the compared scores will.
  void softmax(double largest) const {
    for (int64_t e = 0; e < p.experts; e++) compared[e] = z[e] == largest ? 0 : z[e] - largest;
    exponentials(compared, p.experts, s);
    double sum = 0;
    for (int64_t e = 0; e < p.experts; e++) sum += s[e];
    for (int64_t e = 0; e < p.experts; e++) s[e] /= sum;
  }

  void sigmoid() const {
    for (int64_t e = 0; e < p.experts; e++) compared[e] = -__builtin_fabs(z[e]);
    exponentials(compared, p.experts, s);
    for (int64_t e = 0; e < p.experts; e++) s[e] = (z[e] >= 0 ? 1 : s[e]) / (1 + s[e]);
  }

  void choose(const double* values, int32_t* ids) const {
    if (p.groups == 1) {
      insert_best(values, 0, p.experts, p.top_k, ids, 0);
      return;
    }
    const int64_t size = p.experts / p.groups;
    for (int64_t g = 0; g < p.groups; g++) {
      int32_t two[2];
      const int64_t n = insert_best(values, g * size, (g + 1) * size, 2, two, 0);
      worth[g] = p.bias && n == 2 ? or_least(values[two[0]] + values[two[1]]) : values[two[0]];
      marks[g] = 0;
    }
    insert_best(worth, 0, p.groups, p.kept_groups, kept, 0);
    for (int64_t i = 0; i < p.kept_groups; i++) marks[kept[i]] = 1;
    int64_t length = 0;
    for (int64_t g = 0; g < p.groups; g++)
      if (marks[g]) length = insert_best(values, g * size, (g + 1) * size, p.top_k, ids, length);
  }
};

}  // namespace

void moe_route_plan(const moe_route_params& p, int slots, KernelPlan& plan) {
  plan.name = "list";
  plan.scratch_bytes = slots * slot_bytes(p);
  plan.phases = p.tokens > 0;
  plan.tasks[0] = (p.tokens + task_tokens(p) - 1) / task_tokens(p);
}

void moe_route_task(const moe_route_params& p, const Task& task) {
  const Route route(p, task.scratch + task.slot * slot_bytes(p));
  const int64_t each = task_tokens(p), first = task.index * each;
  for (int64_t t = first; t < first + each && t < p.tokens; t++) route.token(t);
}

}  // namespace HOTSET_ISA
}  // namespace hotset
