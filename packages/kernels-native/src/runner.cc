// Replays a case pack (packages/core/src/testing/pack.ts) on one instruction set, without Node: under qemu for other
// processors, under sanitizers, on bare machines. Tensors are separate heap blocks of exactly their size, so that a
// sanitizer sees any access beyond them; outputs are poisoned, inputs compared after the run.
//
//   hotset_runner <pack> [--isa NAME] [--threads N] [--json]
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dispatch.h"
#include "pool.h"

namespace {

using hotset::Isa;
using hotset::Kernel;
using hotset::KernelPlan;
using hotset::Status;

[[noreturn]] void stop(const std::string& message) {
  std::fprintf(stderr, "hotset_runner: %s\n", message.c_str());
  std::exit(2);
}

// The pack's bytes; every length is compared with what is left before it is used.
class Reader {
 public:
  explicit Reader(std::vector<char> data) : data_(std::move(data)) {}

  int64_t number() {
    int64_t value;
    std::memcpy(&value, take(8), 8);
    return value;
  }
  std::string text() {
    const int64_t length = number();
    const char* const at = take(length);
    pad();
    return std::string(at, size_t(length));
  }
  std::vector<char> bytes() {
    const int64_t length = number();
    const char* const at = take(length);
    pad();
    return std::vector<char>(at, at + length);
  }
  const char* take(int64_t length) {
    if (length < 0 || length > int64_t(data_.size()) - at_) stop("the pack is truncated");
    const char* const at = data_.data() + at_;
    at_ += length;
    return at;
  }

 private:
  void pad() { at_ = (at_ + 7) & ~int64_t(7); }
  std::vector<char> data_;
  int64_t at_ = 0;
};

std::vector<char> read_file(const char* path) {
  std::FILE* const file = std::fopen(path, "rb");
  if (!file) stop(std::string("cannot open ") + path);
  std::vector<char> data;
  char part[1 << 16];
  for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) data.insert(data.end(), part, part + n);
  std::fclose(file);
  return data;
}

enum Role : int64_t { role_in, role_out, role_inout, role_absent };

struct Tensor {
  Role role = role_absent;
  int64_t element = 1;
  int64_t shift = 0;
  std::vector<char> initial, expected, within;
  int64_t mode = 0;

  // One block of exactly the tensor's size, `shift` elements off the allocator's alignment.
  std::unique_ptr<char, void (*)(void*)> block{nullptr, std::free};
  char* data = nullptr;
  size_t size() const { return role == role_out ? expected.size() : initial.size(); }

  void allocate() {
    if (role == role_absent) return;
    const size_t offset = size_t(shift * element);
    block.reset(static_cast<char*>(std::malloc(offset + size())));
    // An empty tensor still has an address: a null pointer would mean an absent one.
    if (offset + size() == 0) block.reset(static_cast<char*>(std::malloc(1)));
    if (!block) stop("out of memory");
    data = block.get() + offset;
  }
  void reset() {
    if (role == role_out) std::memset(data, 0xff, size());
    else if (role != role_absent && size() > 0) std::memcpy(data, initial.data(), size());
  }
  std::string wrong(const std::string& name) const {
    if (role == role_absent) return "";
    if (role == role_in) return size() && std::memcmp(data, initial.data(), size()) ? "input " + name + " was written" : "";
    for (size_t i = 0; i < expected.size() / size_t(element); i++) {
      const char* const got = data + i * size_t(element);
      const char* const want = expected.data() + i * size_t(element);
      if (!std::memcmp(got, want, size_t(element))) continue;
      if (mode == 1) {
        float a, b, limit;
        std::memcpy(&a, got, 4);
        std::memcpy(&b, want, 4);
        std::memcpy(&limit, within.data() + i * 4, 4);
        if (a == b || (std::isnan(a) && std::isnan(b)) || std::fabs(a - b) <= limit) continue;
      }
      return name + "[" + std::to_string(i) + "] differs";
    }
    return "";
  }
};

struct Options {
  const char* pack = nullptr;
  const Isa* isa = hotset::best_isa();
  int threads = 1;
  bool json = false;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    if (argument == "--isa" && i + 1 < argc) {
      options.isa = hotset::find_isa(argv[++i]);
      if (!options.isa || !options.isa->available()) stop(std::string("this processor cannot run ") + argv[i]);
    } else if (argument == "--threads" && i + 1 < argc) {
      options.threads = std::atoi(argv[++i]);
      if (options.threads < 1 || options.threads > 256) stop("--threads takes 1 to 256");
    } else if (argument == "--json") {
      options.json = true;
    } else if (argument[0] != '-' && !options.pack) {
      options.pack = argv[i];
    } else {
      stop("usage: hotset_runner <pack> [--isa NAME] [--threads N] [--json]");
    }
  }
  if (!options.pack) stop("usage: hotset_runner <pack> [--isa NAME] [--threads N] [--json]");
  return options;
}

// Where the pointer of each tensor lies in a parameter struct: after the 8-byte axes and pitches, in port order.
void set_pointers(std::vector<char>& params, const std::vector<Tensor>& tensors, size_t first) {
  for (size_t i = 0; i < tensors.size(); i++) std::memcpy(params.data() + first + 8 * i, &tensors[i].data, 8);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Reader pack(read_file(options.pack));
  if (std::memcmp(pack.take(8), "HSPACK1\n", 8)) stop("not a case pack");
  const int64_t cases = pack.number();
  int64_t passed = 0, failed = 0;
  std::map<std::string, std::set<std::string>> ran;

  for (int64_t c = 0; c < cases; c++) {
    const std::string name = pack.text(), symbol = pack.text();
    std::vector<char> capacity = pack.bytes(), actual = pack.bytes();
    const int64_t pointers_at = pack.number();
    std::vector<Tensor> tensors(size_t(pack.number()));
    for (Tensor& t : tensors) {
      t.role = Role(pack.number());
      if (t.role == role_absent) continue;
      t.element = pack.number();
      t.shift = pack.number();
      t.initial = pack.bytes();
      t.expected = pack.bytes();
      t.mode = pack.number();
      if (t.mode == 1) t.within = pack.bytes();
      t.allocate();
    }
    Status fault;
    fault.code = int32_t(pack.number());
    fault.port = int32_t(pack.number());
    fault.index = pack.number();
    fault.value = pack.number();

    const Kernel* const kernel = hotset::find_kernel(*options.isa, symbol.c_str());
    if (!kernel || int64_t(capacity.size()) != kernel->params_bytes || int(tensors.size()) != kernel->tensors) {
      std::printf("FAILED %s: no kernel %s of this form\n", name.c_str(), symbol.c_str());
      failed++;
      continue;
    }
    set_pointers(capacity, tensors, size_t(pointers_at));
    set_pointers(actual, tensors, size_t(pointers_at));
    KernelPlan plan;
    kernel->plan(capacity.data(), options.threads, &plan);
    std::unique_ptr<char, void (*)(void*)> scratch(static_cast<char*>(std::aligned_alloc(64, size_t(plan.scratch_bytes + 127) / 64 * 64)), std::free);
    if (!scratch) stop("out of memory");
    // What is left of the last case must not matter.
    std::memset(scratch.get(), 0xa5, size_t(plan.scratch_bytes));
    std::vector<Status> statuses(size_t(options.threads));
    for (Tensor& t : tensors) t.reset();
    hotset::run_kernel(*kernel, actual.data(), scratch.get(), options.threads, statuses.data());

    std::string problem;
    for (size_t i = 0; i < tensors.size() && problem.empty(); i++) problem = tensors[i].wrong("tensor " + std::to_string(i));
    const Status got = hotset::first_fault(statuses.data(), options.threads);
    if (problem.empty() && (got.code != fault.code || (got.code && (got.port != fault.port || got.index != fault.index || got.value != fault.value)))) problem = "another fault than expected";
    if (problem.empty()) passed++;
    else failed++, std::printf("FAILED %s: %s [%s]\n", name.c_str(), problem.c_str(), plan.name);
    // "op | variant | case | seed": what support.json has a row for.
    const size_t variant_end = name.find(" | ", name.find(" | ") + 3);
    ran[name.substr(0, variant_end)].insert(plan.name);
  }

  if (options.json) {
    std::printf("[");
    const char* comma = "";
    for (const auto& [key, kernels] : ran) {
      const size_t bar = key.find(" | ");
      std::printf("%s{\"op\":\"%s\",\"variant\":\"%s\",\"target\":\"native-%s\",\"kernels\":[", comma, key.substr(0, bar).c_str(), key.substr(bar + 3).c_str(), options.isa->name);
      const char* inner = "";
      for (const std::string& kernel : kernels) std::printf("%s\"%s\"", inner, kernel.c_str()), inner = ",";
      std::printf("]}");
      comma = ",";
    }
    std::printf("]\n");
  } else {
    std::printf("%s, %d threads: %lld passed, %lld failed\n", options.isa->name, options.threads, static_cast<long long>(passed), static_cast<long long>(failed));
  }
  return failed || passed == 0 ? 1 : 0;
}
