#include "probes.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "pool.h"

namespace hotset {

namespace {

double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Median of the rates of `passes` calls of `pass`, each handling `amount`.
template <class Pass>
double median_rate(double amount, int passes, Pass pass) {
  std::vector<double> rates;
  pass();
  for (int i = 0; i < passes; i++) {
    const double start = seconds_now();
    pass();
    rates.push_back(amount / (seconds_now() - start) / 1e9);
  }
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

struct Work {
  const Probes* probes;
  char* from;
  char* to;
  int64_t part;
  int64_t repeats;
  volatile float sink;
};

}  // namespace

double measure(const Probes& probes, const std::string& kind, int64_t bytes, int threads) {
  if (kind == "madd") {
    Work work = {&probes, nullptr, nullptr, 0, 2000000, 0};
    return median_rate(double(probes.flops_per_step) * double(work.repeats) * threads, 5, [&] {
      Pool::get().run(
          threads, threads, [](void* p, int64_t, int) { static_cast<Work*>(p)->sink = static_cast<Work*>(p)->probes->madd(static_cast<Work*>(p)->repeats); }, &work);
    });
  }
  if (kind == "madd-i8") {
    Work work = {&probes, nullptr, nullptr, 0, 2000000, 0};
    return median_rate(double(probes.ops_i16_per_step) * double(work.repeats) * threads, 5, [&] {
      Pool::get().run(
          threads, threads, [](void* p, int64_t, int) { static_cast<Work*>(p)->sink = float(static_cast<Work*>(p)->probes->madd_i16(static_cast<Work*>(p)->repeats)); }, &work);
    });
  }
  // Each thread has its part; a small working set is passed over several times, so that a pass lasts.
  const int64_t part = std::max<int64_t>(16 << 10, bytes / threads) & ~int64_t(1023);
  const int64_t repeats = std::max<int64_t>(1, (int64_t(8) << 20) / part);
  const bool copy = kind == "copy";
  std::unique_ptr<char, void (*)(void*)> memory(static_cast<char*>(std::malloc(size_t(part * threads * (copy ? 2 : 1)) + 64)), std::free);
  if (!memory) return -1;
  char* const base = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.get()) + 63) & ~uintptr_t(63));
  std::memset(base, 0, size_t(part * threads * (copy ? 2 : 1)));
  Work work = {&probes, base, base + part * threads, part, repeats, 0};
  return median_rate(double(part) * double(repeats) * threads, 7, [&] {
    if (copy) {
      Pool::get().run(
          threads, threads,
          [](void* p, int64_t task, int) {
            Work& w = *static_cast<Work*>(p);
            for (int64_t r = 0; r < w.repeats; r++) std::memcpy(w.to + task * w.part, w.from + task * w.part, size_t(w.part));
          },
          &work);
    } else {
      Pool::get().run(
          threads, threads,
          [](void* p, int64_t task, int) {
            Work& w = *static_cast<Work*>(p);
            float sum = 0;
            for (int64_t r = 0; r < w.repeats; r++) sum += w.probes->read(reinterpret_cast<const float*>(w.from + task * w.part), w.part / 4);
            w.sink = sum;
          },
          &work);
    }
  });
}

}  // namespace hotset
