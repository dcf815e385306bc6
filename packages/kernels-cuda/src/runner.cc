// Replays a case pack (kernels-native/src/pack_reader.h) on a GPU, or in the emulation of one, without Node: on bare
// machines, under compute-sanitizer, under AddressSanitizer. Tensors are separate blocks of device memory, off alignment
// as the pack says; on a GPU margins around them are compared after the run, in the emulation blocks are of exactly their
// size. Outputs and scratch are poisoned, inputs compared after the run. Cases run twice and must give the same bits.
// Outputs are judged as on the CPU: search/scan scores its results canonically here too, so it owes equal bits, and the
// others are within the pack's tolerances. Ops without a kernel here are counted as left out.
//
//   hotset_cuda_runner <pack> [--json] [--only TEXT]
#include "kernel.h"
#include "pack_reader.h"

namespace {

using namespace hotset;

#ifdef HOTSET_CUDA_EMULATED
constexpr size_t kMargin = 0;
#else
constexpr size_t kMargin = 256;
#endif

void ok(cudaError_t error, const char* what) {
  if (error != cudaSuccess) stop(std::string(what) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
}

class DeviceBlock {
 public:
  // `before` bytes precede what is asked for.
  DeviceBlock(size_t bytes, size_t before) : bytes_(bytes), before_(before + kMargin), whole_(before_ + bytes + kMargin) {
    ok(cudaMalloc(&block_, whole_ ? whole_ : 1), "cudaMalloc");
    poison();
  }
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;
  DeviceBlock(DeviceBlock&& other) noexcept : block_(other.block_), bytes_(other.bytes_), before_(other.before_), whole_(other.whole_) { other.block_ = nullptr; }
  ~DeviceBlock() { cudaFree(block_); }

  char* data() const { return block_ + before_; }
  void poison() const { ok(cudaMemset(block_, 0xff, whole_), "cudaMemset"); }
  void upload(const std::vector<char>& bytes) const { ok(cudaMemcpy(data(), bytes.data(), bytes_, cudaMemcpyHostToDevice), "cudaMemcpy"); }
  // The bytes, or nothing where the margins were written.
  bool download(std::vector<char>& out) const {
    std::vector<char> all(whole_);
    ok(cudaMemcpy(all.data(), block_, whole_, cudaMemcpyDeviceToHost), "cudaMemcpy");
    out.assign(all.begin() + ptrdiff_t(before_), all.begin() + ptrdiff_t(before_ + bytes_));
    for (size_t i = 0; i < whole_; i++)
      if ((i < before_ || i >= before_ + bytes_) && all[i] != char(0xff)) return false;
    return true;
  }

 private:
  char* block_ = nullptr;
  size_t bytes_, before_, whole_;
};

struct Context {
  Device device;
  cudaStream_t stream;
};

std::string fault_problem(const PackCase& c, const Status& status) {
  if (c.fault_code) {
    const unsigned long long wanted = (unsigned long long)(c.fault_index) << 32 | uint32_t(c.fault_value);
    return status.first[c.fault_port] == wanted ? "" : "another fault than expected";
  }
  for (const unsigned long long first : status.first)
    if (first != no_fault) return "a fault where none is";
  return "";
}

// What is wrong with the kernel's answer, or nothing.
std::string problem_of(PackCase& c, const Kernel& kernel, const Context& context, KernelPlan& plan) {
  std::vector<DeviceBlock> blocks;
  std::vector<int> block_of(c.tensors.size(), -1);
  for (size_t i = 0; i < c.tensors.size(); i++) {
    const PackTensor& t = c.tensors[i];
    if (t.role == role_absent) continue;
    block_of[i] = int(blocks.size());
    blocks.emplace_back(t.size(), size_t(t.shift * t.element));
    c.set_pointer(i, blocks.back().data());
  }
  kernel.plan(c.capacity.data(), context.device, &plan);
  if (plan.refusal) return std::string("refused: ") + plan.refusal;
  const DeviceBlock scratch(size_t(plan.scratch_bytes), 0);
  const DeviceBlock status_block(sizeof(Status), 0);
  std::vector<std::vector<char>> before(c.tensors.size());
  for (int round = 0; round < 2; round++) {
    for (size_t i = 0; i < c.tensors.size(); i++) {
      if (block_of[i] < 0) continue;
      std::vector<char> bytes(c.tensors[i].size());
      c.tensors[i].fill(bytes.data());
      blocks[size_t(block_of[i])].poison();
      blocks[size_t(block_of[i])].upload(bytes);
    }
    scratch.poison();
    status_block.poison();
    const Run run = {c.actual.data(), scratch.data(), reinterpret_cast<Status*>(status_block.data()), &context.device, context.stream};
    ok(kernel.run(run), c.name.c_str());
    ok(cudaStreamSynchronize(context.stream), c.name.c_str());
    for (size_t i = 0; i < c.tensors.size(); i++) {
      if (block_of[i] < 0) continue;
      const std::string name = "tensor " + std::to_string(i);
      std::vector<char> got;
      if (!blocks[size_t(block_of[i])].download(got)) return name + ": written around";
      const std::string problem = c.tensors[i].wrong(name, got.data());
      if (!problem.empty()) return problem;
      if (round == 1 && got != before[i]) return name + ": other bits in a second run";
      before[i] = got;
    }
    std::vector<char> bytes;
    if (!scratch.download(bytes)) return "scratch: written around";
    if (!status_block.download(bytes)) return "status: written around";
    Status status;
    std::memcpy(&status, bytes.data(), sizeof status);
    const std::string problem = fault_problem(c, status);
    if (!problem.empty()) return problem;
  }
  return "";
}

Context open_device() {
  Context context;
  ok(cudaSetDevice(0), "cudaSetDevice");
  cudaDeviceProp properties;
  ok(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  context.device = {properties.major * 10 + properties.minor, properties.multiProcessorCount, int64_t(properties.sharedMemPerBlockOptin), properties.l2CacheSize};
  ok(cudaStreamCreateWithFlags(&context.stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return context;
}

}  // namespace

int main(int argc, char** argv) {
  const char* path = nullptr;
  std::string only;
  bool json = false;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    if (argument == "--json") json = true;
    else if (argument == "--only" && i + 1 < argc) only = argv[++i];
    else if (argument[0] != '-' && !path) path = argv[i];
    else stop("usage: hotset_cuda_runner <pack> [--json] [--only TEXT]");
  }
  if (!path) stop("usage: hotset_cuda_runner <pack> [--json] [--only TEXT]");
  PackReader pack(path);
  const Context context = open_device();
  int64_t passed = 0, failed = 0, left_out = 0;
  Ran ran;
  for (int64_t n = 0; n < pack.cases; n++) {
    PackCase c = pack.next();
    if (c.name.find(only) == std::string::npos) continue;
    const Kernel* const kernel = find_kernel(c.symbol.c_str());
    if (!kernel) {
      left_out++;
      continue;
    }
    KernelPlan plan = {};
    const bool fits = int64_t(c.capacity.size()) == kernel->params_bytes && int(c.tensors.size()) == kernel->tensors;
    const std::string problem = fits ? problem_of(c, *kernel, context, plan) : "the kernel has other parameters";
    if (problem.empty()) passed++;
    else failed++, std::printf("FAILED %s: %s [%s]\n", c.name.c_str(), problem.c_str(), plan.name ? plan.name : "");
    if (plan.name) ran.add(c.name, plan.name);
  }
  cudaStreamDestroy(context.stream);
#ifdef HOTSET_CUDA_EMULATED
  const std::string target = "cuda-emulated";
#else
  const std::string target = "cuda-sm" + std::to_string(context.device.arch);
#endif
  if (json) ran.print(target);
  else std::printf("%s: %lld passed, %lld failed, %lld left out for want of a kernel\n", target.c_str(), static_cast<long long>(passed), static_cast<long long>(failed), static_cast<long long>(left_out));
  return failed || passed == 0 ? 1 : 0;
}
