// Replays a case pack (pack_reader.h) on one instruction set, without Node: under qemu for other processors, under
// sanitizers, on bare machines. Tensors are separate heap blocks of exactly their size, so that a sanitizer sees any
// access beyond them; outputs are poisoned, inputs compared after the run.
//
//   hotset_runner <pack> [--isa NAME] [--threads N] [--json]
#include <memory>

#include "dispatch.h"
#include "pack_reader.h"
#include "pool.h"

namespace {

using namespace hotset;

using HeapBlock = std::unique_ptr<char, void (*)(void*)>;

// One block of exactly the tensor's size, `shift` elements off the allocator's alignment.
HeapBlock allocate(const PackTensor& t) {
  const size_t bytes = size_t(t.shift * t.element) + t.size();
  // An empty tensor still has an address: a null pointer would mean an absent one.
  HeapBlock block(static_cast<char*>(std::malloc(bytes ? bytes : 1)), std::free);
  if (!block) stop("out of memory");
  return block;
}

struct Options {
  const char* pack = nullptr;
  const Isa* isa = best_isa();
  int threads = 1;
  bool json = false;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    if (argument == "--isa" && i + 1 < argc) {
      options.isa = find_isa(argv[++i]);
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

// What is wrong with the kernel's answer, or nothing.
std::string problem_of(PackCase& c, const Kernel& kernel, int threads, KernelPlan& plan) {
  std::vector<HeapBlock> blocks;
  std::vector<char*> data(c.tensors.size(), nullptr);
  for (size_t i = 0; i < c.tensors.size(); i++) {
    const PackTensor& t = c.tensors[i];
    if (t.role == role_absent) continue;
    blocks.push_back(allocate(t));
    data[i] = blocks.back().get() + t.shift * t.element;
    c.set_pointer(i, data[i]);
    t.fill(data[i]);
  }
  kernel.plan(c.capacity.data(), threads, &plan);
  const HeapBlock scratch(static_cast<char*>(std::aligned_alloc(64, size_t(plan.scratch_bytes + 127) / 64 * 64)), std::free);
  if (!scratch) stop("out of memory");
  // What is left of the last case must not matter.
  std::memset(scratch.get(), 0xa5, size_t(plan.scratch_bytes));
  std::vector<Status> statuses(static_cast<size_t>(threads));
  run_kernel(kernel, c.actual.data(), scratch.get(), threads, statuses.data());

  for (size_t i = 0; i < c.tensors.size(); i++) {
    const std::string problem = c.tensors[i].wrong("tensor " + std::to_string(i), data[i]);
    if (!problem.empty()) return problem;
  }
  const Status got = first_fault(statuses.data(), threads);
  if (got.code != c.fault_code) return "another fault than expected";
  if (got.code && (got.port != c.fault_port || got.index != c.fault_index || got.value != c.fault_value)) return "another fault than expected";
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  PackReader pack(options.pack);
  int64_t passed = 0, failed = 0;
  Ran ran;
  for (int64_t n = 0; n < pack.cases; n++) {
    PackCase c = pack.next();
    const Kernel* const kernel = find_kernel(*options.isa, c.symbol.c_str());
    if (!kernel || int64_t(c.capacity.size()) != kernel->params_bytes || int(c.tensors.size()) != kernel->tensors) {
      std::printf("FAILED %s: no kernel %s of this form\n", c.name.c_str(), c.symbol.c_str());
      failed++;
      continue;
    }
    KernelPlan plan;
    const std::string problem = problem_of(c, *kernel, options.threads, plan);
    if (problem.empty()) passed++;
    else failed++, std::printf("FAILED %s: %s [%s]\n", c.name.c_str(), problem.c_str(), plan.name);
    ran.add(c.name, plan.name);
  }
  if (options.json) ran.print(std::string("native-") + options.isa->name);
  else std::printf("%s, %d threads: %lld passed, %lld failed\n", options.isa->name, options.threads, static_cast<long long>(passed), static_cast<long long>(failed));
  return failed || passed == 0 ? 1 : 0;
}
