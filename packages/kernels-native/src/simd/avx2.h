// AVX2, FMA, F16C: 8 floats, 16 registers.
#pragma once
#include <immintrin.h>

namespace hotset {
namespace HOTSET_ISA {

constexpr int kLanes = 8;
constexpr int kRegisters = 16;
constexpr int kLanes16 = 16;
// 6 queries x 2 row vectors are 12 sums; with 2 loads and a broadcast, 15 of 16 registers.
constexpr int kPanelVectors = 2;
constexpr int kQueryTile = 6;

struct f32v {
  __m256 v;
};
struct i16v {
  __m256i v;
};
struct i32v {
  __m256i v;
};

static inline f32v zero() { return {_mm256_setzero_ps()}; }
static inline f32v splat(float x) { return {_mm256_set1_ps(x)}; }
static inline f32v load(const float* p) { return {_mm256_loadu_ps(p)}; }
static inline f32v load(const f16* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
static inline f32v load(const bf16* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16))};
}
static inline f32v load(const int8_t* p) { return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))}; }
static inline void store(float* p, f32v a) { _mm256_storeu_ps(p, a.v); }
static inline f32v add(f32v a, f32v b) { return {_mm256_add_ps(a.v, b.v)}; }
static inline f32v sub(f32v a, f32v b) { return {_mm256_sub_ps(a.v, b.v)}; }
static inline f32v mul(f32v a, f32v b) { return {_mm256_mul_ps(a.v, b.v)}; }
static inline f32v div(f32v a, f32v b) { return {_mm256_div_ps(a.v, b.v)}; }
static inline f32v sqrt(f32v a) { return {_mm256_sqrt_ps(a.v)}; }
static inline f32v madd(f32v a, f32v b, f32v c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
// Bit i: not (a[i] < b[i]), so a NaN counts.
static inline uint32_t not_less(f32v a, f32v b) { return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_NLT_UQ))); }
static inline f32v select_inside(f32v a, float low, float high, f32v yes, f32v no) {
  const __m256 inside = _mm256_and_ps(_mm256_cmp_ps(a.v, _mm256_set1_ps(low), _CMP_GT_OQ), _mm256_cmp_ps(a.v, _mm256_set1_ps(high), _CMP_LT_OQ));
  return {_mm256_blendv_ps(no.v, yes.v, inside)};
}
// The larger; b where either is NaN.
static inline f32v larger(f32v a, f32v b) { return {_mm256_max_ps(a.v, b.v)}; }
static inline f32v smaller(f32v a, f32v b) { return {_mm256_min_ps(a.v, b.v)}; }
// 2^n, given n + 1.5 * 2^23; 0 for n = -127.
static inline f32v power_of_two(f32v a) { return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(a.v), 23), _mm256_set1_epi32(127 << 23)))}; }
static inline float reduce_add(f32v a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline i32v zero_i32() { return {_mm256_setzero_si256()}; }
static inline i16v load_i16(const int16_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
static inline i16v widen_i8(const int8_t* p) { return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
static inline i16v and_bits(i16v a, i16v b) { return {_mm256_and_si256(a.v, b.v)}; }
static inline i32v madd_i16(i16v a, i16v b, i32v c) { return {_mm256_add_epi32(c.v, _mm256_madd_epi16(a.v, b.v))}; }
static inline f32v to_f32(i32v a) { return {_mm256_cvtepi32_ps(a.v)}; }
static inline int64_t reduce_add(i32v a) {
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), a.v);
  int64_t total = 0;
  for (int i = 0; i < 8; i++) total += lanes[i];
  return total;
}

// Sums of four vectors, in four floats.
static inline void reduce_add4(f32v a, f32v b, f32v c, f32v d, float* out) {
  const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a.v, b.v), _mm256_hadd_ps(c.v, d.v));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

// Sums of four vectors times `scale`, in four floats. The sums fit 32 bits.
static inline void reduce_add4(i32v a, i32v b, i32v c, i32v d, float scale, float* out) {
  const __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(a.v, b.v), _mm256_hadd_epi32(c.v, d.v));
  const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  _mm_storeu_ps(out, _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_set1_ps(scale)));
}

// A kLanes x kLanes transpose in place.
static inline void transpose(f32v (&r)[8]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i].v, r[2 * i + 1].v);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i].v, r[2 * i + 1].v);
  }
  for (int i = 0; i < 2; i++) {
    u[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    r[i].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
