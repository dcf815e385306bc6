#include "dispatch.h"

#include <cstring>

#if defined(_MSC_VER) && (defined(_M_X64) || defined(__x86_64__))
#include <intrin.h>
#endif

namespace hotset {

#define HOTSET_DECLARE(isa)           \
  namespace isa {                     \
  extern const Kernel kernels[];      \
  extern const int kernel_count;      \
  extern const Probes probes;         \
  }

namespace {

[[maybe_unused]] bool always() { return true; }

#if defined(__x86_64__) && !defined(_MSC_VER)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }
[[maybe_unused]] bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
}
#elif defined(_M_X64)
// CPUID says what the processor has, XGETBV what the operating system saves.
struct Features {
  bool avx2 = false, avx512 = false;
  Features() {
    int r[4];
    __cpuidex(r, 1, 0);
    const bool osxsave = r[2] >> 27 & 1, fma = r[2] >> 12 & 1, f16c = r[2] >> 29 & 1;
    if (!osxsave) return;
    const auto saved = _xgetbv(0);
    __cpuidex(r, 7, 0);
    avx2 = (saved & 6) == 6 && fma && f16c && (r[1] >> 5 & 1);
    avx512 = avx2 && (saved & 0xe6) == 0xe6 && (r[1] >> 16 & 1) && (r[1] >> 17 & 1) && (r[1] >> 30 & 1) && (r[1] >> 31 & 1);
  }
};
const Features& features() {
  static const Features found;
  return found;
}
bool has_avx2() { return features().avx2; }
[[maybe_unused]] bool has_avx512() { return features().avx512; }
#endif

}  // namespace

#if defined(__x86_64__) || defined(_M_X64)
#ifndef HOTSET_WITHOUT_SSE2
HOTSET_DECLARE(sse2)
#endif
#ifndef HOTSET_WITHOUT_AVX2
HOTSET_DECLARE(avx2)
#endif
#ifndef HOTSET_WITHOUT_AVX512
HOTSET_DECLARE(avx512)
#endif
#define HOTSET_ROW(isa, available, needs) {#isa, available, needs, isa::kernels, isa::kernel_count, &isa::probes}
extern const Isa isas[] = {
#ifndef HOTSET_WITHOUT_AVX512
    HOTSET_ROW(avx512, has_avx512, "AVX-512 F, BW, VL and DQ"),
#endif
#ifndef HOTSET_WITHOUT_AVX2
    HOTSET_ROW(avx2, has_avx2, "AVX2, FMA and F16C"),
#endif
#ifndef HOTSET_WITHOUT_SSE2
    HOTSET_ROW(sse2, always, "x86-64"),
#endif
};
#else
HOTSET_DECLARE(neon)
#define HOTSET_ROW(isa, available, needs) {#isa, available, needs, isa::kernels, isa::kernel_count, &isa::probes}
extern const Isa isas[] = {HOTSET_ROW(neon, always, "AArch64")};
#endif
extern const int isa_count = sizeof(isas) / sizeof(isas[0]);

#if defined(__x86_64__) && !defined(_MSC_VER)
const bool prefetch_helps = __builtin_cpu_is("intel");
#elif defined(_M_X64)
const bool prefetch_helps = [] {
  int r[4];
  __cpuid(r, 0);
  return r[1] == 0x756e6547;  // "Genu"
}();
#else
const bool prefetch_helps = false;
#endif

const Isa* find_isa(const char* name) {
  for (int i = 0; i < isa_count; i++)
    if (!std::strcmp(isas[i].name, name)) return &isas[i];
  return nullptr;
}

const Isa* best_isa() {
  for (int i = 0; i < isa_count; i++)
    if (isas[i].available()) return &isas[i];
  return nullptr;
}

const Kernel* find_kernel(const Isa& isa, const char* symbol) {
  for (int i = 0; i < isa.kernel_count; i++)
    if (!std::strcmp(isa.kernels[i].symbol, symbol)) return &isa.kernels[i];
  return nullptr;
}

}  // namespace hotset
