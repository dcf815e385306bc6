// AVX-512 F, BW, VL, DQ: 16 floats, 32 registers.
#pragma once
#include <immintrin.h>

namespace hotset {
namespace HOTSET_ISA {

constexpr int kLanes = 16;
constexpr int kRegisters = 32;
constexpr int kLanes16 = 32;
// 12 queries x 2 row vectors are 24 sums; with 2 loads and a broadcast, 27 of 32 registers.
constexpr int kPanelVectors = 2;
constexpr int kQueryTile = 12;

struct f32v {
  __m512 v;
};
struct i16v {
  __m512i v;
};
struct i32v {
  __m512i v;
};

static inline f32v zero() { return {_mm512_setzero_ps()}; }
static inline f32v splat(float x) { return {_mm512_set1_ps(x)}; }
static inline f32v load(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline f32v load(const f16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
static inline f32v load(const bf16* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16))};
}
static inline f32v load(const int8_t* p) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))}; }
static inline void store(float* p, f32v a) { _mm512_storeu_ps(p, a.v); }
static inline f32v add(f32v a, f32v b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline f32v sub(f32v a, f32v b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline f32v mul(f32v a, f32v b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline f32v div(f32v a, f32v b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline f32v sqrt(f32v a) { return {_mm512_sqrt_ps(a.v)}; }
static inline f32v madd(f32v a, f32v b, f32v c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// Bit i: not (a[i] < b[i]), so a NaN counts.
static inline uint32_t not_less(f32v a, f32v b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ); }
static inline f32v select_inside(f32v a, float low, float high, f32v yes, f32v no) {
  const __mmask16 inside = _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(low), _CMP_GT_OQ) & _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(high), _CMP_LT_OQ);
  return {_mm512_mask_blend_ps(inside, no.v, yes.v)};
}
// The larger; b where either is NaN.
static inline f32v larger(f32v a, f32v b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline f32v smaller(f32v a, f32v b) { return {_mm512_min_ps(a.v, b.v)}; }
// 2^n, given n + 1.5 * 2^23; 0 for n = -127.
static inline f32v power_of_two(f32v a) { return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23), _mm512_set1_epi32(127 << 23)))}; }
static inline float reduce_add(f32v a) { return _mm512_reduce_add_ps(a.v); }

static inline i32v zero_i32() { return {_mm512_setzero_si512()}; }
static inline i16v load_i16(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
static inline i16v widen_i8(const int8_t* p) { return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
static inline i16v and_bits(i16v a, i16v b) { return {_mm512_and_si512(a.v, b.v)}; }
static inline i32v madd_i16(i16v a, i16v b, i32v c) { return {_mm512_add_epi32(c.v, _mm512_madd_epi16(a.v, b.v))}; }
static inline f32v to_f32(i32v a) { return {_mm512_cvtepi32_ps(a.v)}; }
static inline int64_t reduce_add(i32v a) {
  const __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(a.v)), high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(a.v, 1));
  return _mm512_reduce_add_epi64(_mm512_add_epi64(low, high));
}

// Sums of four vectors, in four floats.
static inline void reduce_add4(f32v a, f32v b, f32v c, f32v d, float* out) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.v, d.v), _mm512_unpackhi_ps(c.v, d.v));
  const __m512 x = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
  const __m512 y = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
  const __m512 s = _mm512_add_ps(x, y);
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}

// Sums of four vectors times `scale`, in four floats. The sums fit 32 bits.
static inline void reduce_add4(i32v a, i32v b, i32v c, i32v d, float scale, float* out) {
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a.v, b.v), _mm512_unpackhi_epi32(a.v, b.v));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c.v, d.v), _mm512_unpackhi_epi32(c.v, d.v));
  const __m512i s = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
  const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  _mm_storeu_ps(out, _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_set1_ps(scale)));
}

// A kLanes x kLanes transpose in place.
static inline void transpose(f32v (&r)[16]) {
  __m512 t[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i].v, r[2 * i + 1].v);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i].v, r[2 * i + 1].v);
  }
  for (int i = 0; i < 4; i++) {
    const __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]), c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
    r[4 * i].v = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[4 * i + 1].v = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[4 * i + 2].v = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[4 * i + 3].v = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_f32x4(r[i].v, r[i + 4].v, 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i].v, r[i + 4].v, 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8].v, r[i + 12].v, 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8].v, r[i + 12].v, 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i].v = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 8].v = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    r[i + 4].v = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12].v = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
