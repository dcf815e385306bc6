// The peer "OpenBLAS product and top-k": what one would write with a BLAS at hand. Rows go through in blocks whose
// scores stay in the L2 cache; a vectorised comparison with each query's threshold comes before the heap.
// Two ways to use the threads, and the bench takes the faster: OpenBLAS's own, or one single-threaded OpenBLAS a thread.
#include <dlfcn.h>
#include <node_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
using SetThreads = void (*)(int);
using Config = char* (*)();

static Sgemm sgemm;
static SetThreads set_threads;

struct TopK {
  size_t k;
  float threshold = -INFINITY;
  std::vector<std::pair<float, int64_t>> heap;  // worst first

  static bool better(const std::pair<float, int64_t>& a, const std::pair<float, int64_t>& b) { return a.first > b.first || (a.first == b.first && a.second < b.second); }
  void push(float score, int64_t row) {
    if (heap.size() == k) {
      std::pop_heap(heap.begin(), heap.end(), better);
      heap.pop_back();
    }
    heap.emplace_back(score, row);
    std::push_heap(heap.begin(), heap.end(), better);
    if (heap.size() == k) threshold = heap.front().first;
  }
  void scan(const float* scores, int64_t n, int64_t first) {
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
      int any = 0;
      for (int j = 0; j < 32; j++) any |= scores[i + j] > threshold;
      if (!any) continue;
      for (int j = 0; j < 32; j++)
        if (scores[i + j] > threshold) push(scores[i + j], first + i + j);
    }
    for (; i < n; i++)
      if (scores[i] > threshold) push(scores[i], first + i);
  }
};

static void part(const float* queries, int64_t batch, const float* rows, int64_t from, int64_t to, int64_t dim, int64_t block, std::vector<TopK>& best) {
  std::vector<float> scores(size_t(batch * block));
  for (int64_t row = from; row < to; row += block) {
    const int n = int(std::min(block, to - row));
    // Row major: scores [batch, n] = queries [batch, dim] x rows [n, dim]^T.
    sgemm(101, 111, 112, int(batch), n, int(dim), 1, queries, int(dim), rows + row * dim, int(dim), 0, scores.data(), n);
    for (int64_t q = 0; q < batch; q++) best[size_t(q)].scan(scores.data() + q * n, n, row);
  }
}

static int64_t number(napi_env env, napi_value value) {
  int64_t out = 0;
  napi_get_value_int64(env, value, &out);
  return out;
}
template <class T>
static T* data(napi_env env, napi_value value) {
  void* out = nullptr;
  napi_get_typedarray_info(env, value, nullptr, nullptr, &out, nullptr, nullptr);
  return static_cast<T*>(out);
}

// search(queries, batch, rows, count, dim, k, threads, split, block, ids, scores)
static napi_value search(napi_env env, napi_callback_info info) {
  napi_value a[11];
  size_t argc = 11;
  napi_get_cb_info(env, info, &argc, a, nullptr, nullptr);
  const float *queries = data<float>(env, a[0]), *rows = data<float>(env, a[2]);
  const int64_t batch = number(env, a[1]), count = number(env, a[3]), dim = number(env, a[4]), k = number(env, a[5]), threads = number(env, a[6]), split = number(env, a[7]), block = number(env, a[8]);
  int32_t* ids = data<int32_t>(env, a[9]);
  float* out = data<float>(env, a[10]);
  std::vector<std::vector<TopK>> best(size_t(split ? threads : 1), std::vector<TopK>(size_t(batch), TopK{size_t(k)}));
  set_threads(split ? 1 : int(threads));
  if (split) {
    std::vector<std::thread> workers;
    for (int64_t t = 1; t < threads; t++) workers.emplace_back([&, t] { part(queries, batch, rows, count * t / threads, count * (t + 1) / threads, dim, block, best[size_t(t)]); });
    part(queries, batch, rows, 0, count / threads, dim, block, best[0]);
    for (auto& worker : workers) worker.join();
  } else {
    part(queries, batch, rows, 0, count, dim, block, best[0]);
  }
  for (int64_t q = 0; q < batch; q++) {
    std::vector<std::pair<float, int64_t>> all;
    for (auto& thread : best) all.insert(all.end(), thread[size_t(q)].heap.begin(), thread[size_t(q)].heap.end());
    std::sort(all.begin(), all.end(), TopK::better);
    for (int64_t i = 0; i < k; i++) ids[q * k + i] = int32_t(all[size_t(i)].second), out[q * k + i] = all[size_t(i)].first;
  }
  return nullptr;
}

// open(path): the library's own description, or undefined.
static napi_value open(napi_env env, napi_callback_info info) {
  napi_value argument, out = nullptr;
  size_t argc = 1, length = 0;
  napi_get_cb_info(env, info, &argc, &argument, nullptr, nullptr);
  char path[512];
  napi_get_value_string_utf8(env, argument, path, sizeof path, &length);
  void* const library = dlopen(path, RTLD_NOW);
  if (!library) return nullptr;
  sgemm = reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
  set_threads = reinterpret_cast<SetThreads>(dlsym(library, "openblas_set_num_threads"));
  const auto config = reinterpret_cast<Config>(dlsym(library, "openblas_get_config"));
  if (!sgemm || !set_threads || !config) return nullptr;
  napi_create_string_utf8(env, config(), NAPI_AUTO_LENGTH, &out);
  return out;
}

NAPI_MODULE_INIT() {
  napi_value f;
  napi_create_function(env, "open", NAPI_AUTO_LENGTH, open, nullptr, &f);
  napi_set_named_property(env, exports, "open", f);
  napi_create_function(env, "search", NAPI_AUTO_LENGTH, search, nullptr, &f);
  napi_set_named_property(env, exports, "search", f);
  return exports;
}
