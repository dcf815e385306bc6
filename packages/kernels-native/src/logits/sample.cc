// logits/sample: a token from softmax(logits / temperature), cut by top-k, top-p and min-p, drawn by (seed, position).
//
// A row is a task: the largest logit, then weights in f64 by a fixed series, then, where top-k or top-p cut, a heap of
// (logit, lower id) that gives up the best one by one, as many as are kept; sums run by id. Scalar and in f64, as all host
// backends owe the same bits: about 6 ns a token with weights, 1 ns when greedy. Bound by the exponentials.
#include "../gen/params.h"
#include "../kernel.h"
#include "canonical.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

// Of each slot: weights [vocab] in f64, a heap of ids [vocab].
int64_t slot_bytes(const logits_sample_params& p) { return round_up(p.vocab * 12, 64); }

struct Row {
  const float* logits;
  double* weights;
  uint32_t* heap;
  int64_t n = 0;

  // Does a come before b?
  bool before(uint32_t a, uint32_t b) const { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); }

  void sink(int64_t at) {
    const uint32_t id = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
      if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
      if (!before(heap[child], id)) break;
      heap[at] = heap[child];
    }
    heap[at] = id;
  }
  void build() {
    for (int64_t i = n / 2 - 1; i >= 0; i--) sink(i);
  }
  // The best that is left; those taken lie behind the heap, the latest first.
  uint32_t take() {
    const uint32_t best = heap[0];
    heap[0] = heap[--n];
    heap[n] = best;
    sink(0);
    return best;
  }
};

void draw(const logits_sample_params& p, int64_t index, char* own) {
  Row row{p.logits + index * p.vocab, reinterpret_cast<double*>(own), reinterpret_cast<uint32_t*>(own + p.vocab * 8)};
  float largest = -INFINITY;
  int64_t first = -1;
  for (int64_t i = 0; i < p.vocab; i++)
    if (row.logits[i] > largest) largest = row.logits[first = i];
  p.ids[index] = int32_t(first);
  p.kept[index] = first >= 0;
  if (first < 0 || p.temperature == 0) return;
  for (int64_t i = 0; i < p.vocab; i++) {
    row.weights[i] = row.logits[i] == largest ? 1 : canonical_exp((double(row.logits[i]) - double(largest)) / double(p.temperature));
    if (row.weights[i] > 0) row.heap[row.n++] = uint32_t(i);
  }
  // Tokens behind this one, by rank, are cut off.
  const int64_t all = row.n, best = p.top_k == 0 ? all : least(all, p.top_k);
  bool cut = best < all;
  uint32_t last = 0;
  const auto kept = [&](int64_t i) { return row.weights[i] > 0 && (!cut || !row.before(last, uint32_t(i))); };
  if (cut || p.top_p < 1) row.build();
  if (cut)
    for (int64_t i = 0; i < best; i++) last = row.take();
  if (p.top_p < 1) {
    double total = 0, mass = 0;
    for (int64_t i = 0; i < p.vocab; i++)
      if (kept(i)) total += row.weights[i];
    const double wanted = double(p.top_p) * total;
    for (int64_t i = 0; i < best && (i == 0 || mass < wanted); i++) {
      last = all - row.n > i ? row.heap[all - 1 - i] : row.take();
      mass += row.weights[last];
    }
    cut = true;
  }
  double total = 0;
  uint32_t count = 0;
  for (int64_t i = 0; i < p.vocab; i++) {
    if (kept(i) && row.weights[i] >= double(p.min_p)) total += row.weights[i], count++;
    else row.weights[i] = 0;
  }
  const double target = uniform_at(p.seeds[index], p.positions[index]) * total;
  double passed = 0;
  for (int64_t i = 0; i < p.vocab; i++) {
    if (row.weights[i] == 0) continue;
    passed += row.weights[i];
    p.ids[index] = int32_t(i);
    if (passed > target) break;
  }
  p.kept[index] = count;
}

}  // namespace

void logits_sample_plan(const logits_sample_params& p, int slots, KernelPlan& plan) {
  plan.name = "heap";
  plan.scratch_bytes = slots * slot_bytes(p);
  plan.phases = p.rows > 0;
  plan.tasks[0] = p.rows;
}

void logits_sample_task(const logits_sample_params& p, const Task& task) { draw(p, task.index, task.scratch + task.slot * slot_bytes(p)); }

}  // namespace HOTSET_ISA
}  // namespace hotset
