// SSE2, the x86-64 baseline: 4 floats, 16 registers, no fused multiply-add.
#pragma once
#include <emmintrin.h>

namespace hotset {
namespace HOTSET_ISA {

constexpr int kLanes = 4;
constexpr int kRegisters = 16;
constexpr int kLanes16 = 8;
// 6 queries x 2 row vectors are 12 sums; with 2 loads and a product, 15 of 16 registers.
constexpr int kPanelVectors = 2;
constexpr int kQueryTile = 6;

struct f32v {
  __m128 v;
};
struct i16v {
  __m128i v;
};
struct i32v {
  __m128i v;
};

static inline f32v zero() { return {_mm_setzero_ps()}; }
static inline f32v splat(float x) { return {_mm_set1_ps(x)}; }
static inline f32v load(const float* p) { return {_mm_loadu_ps(p)}; }
static inline f32v load(const f16* p) {
  const __m128i bits = _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), _mm_setzero_si128());
  const __m128i magnitude = _mm_and_si128(bits, _mm_set1_epi32(0x7fff));
  // Exponent and fraction moved into place, then times 2^112 for the bias: exact, subnormals too.
  const __m128i value = _mm_castps_si128(_mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(magnitude, 13)), _mm_set1_ps(0x1p112f)));
  const __m128i infinite = _mm_and_si128(_mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff)), _mm_set1_epi32(0x7f800000));
  const __m128i sign = _mm_slli_epi32(_mm_andnot_si128(_mm_set1_epi32(0x7fff), bits), 16);
  return {_mm_castsi128_ps(_mm_or_si128(_mm_or_si128(value, infinite), sign))};
}
static inline f32v load(const bf16* p) { return {_mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))}; }
static inline f32v load(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  const __m128i bytes = _mm_cvtsi32_si128(four);
  const __m128i words = _mm_unpacklo_epi8(bytes, bytes);
  return {_mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(words, words), 24))};
}
static inline void store(float* p, f32v a) { _mm_storeu_ps(p, a.v); }
static inline f32v add(f32v a, f32v b) { return {_mm_add_ps(a.v, b.v)}; }
static inline f32v sub(f32v a, f32v b) { return {_mm_sub_ps(a.v, b.v)}; }
static inline f32v mul(f32v a, f32v b) { return {_mm_mul_ps(a.v, b.v)}; }
static inline f32v div(f32v a, f32v b) { return {_mm_div_ps(a.v, b.v)}; }
static inline f32v sqrt(f32v a) { return {_mm_sqrt_ps(a.v)}; }
static inline f32v madd(f32v a, f32v b, f32v c) { return {_mm_add_ps(_mm_mul_ps(a.v, b.v), c.v)}; }
// Bit i: not (a[i] < b[i]), so a NaN counts.
static inline uint32_t not_less(f32v a, f32v b) { return uint32_t(_mm_movemask_ps(_mm_cmpnlt_ps(a.v, b.v))); }
static inline f32v select_inside(f32v a, float low, float high, f32v yes, f32v no) {
  const __m128 inside = _mm_and_ps(_mm_cmpgt_ps(a.v, _mm_set1_ps(low)), _mm_cmplt_ps(a.v, _mm_set1_ps(high)));
  return {_mm_or_ps(_mm_and_ps(inside, yes.v), _mm_andnot_ps(inside, no.v))};
}
// The larger; b where either is NaN.
static inline f32v larger(f32v a, f32v b) { return {_mm_max_ps(a.v, b.v)}; }
static inline f32v smaller(f32v a, f32v b) { return {_mm_min_ps(a.v, b.v)}; }
// 2^n, given n + 1.5 * 2^23; 0 for n = -127.
static inline f32v power_of_two(f32v a) { return {_mm_castsi128_ps(_mm_add_epi32(_mm_slli_epi32(_mm_castps_si128(a.v), 23), _mm_set1_epi32(127 << 23)))}; }
static inline float reduce_add(f32v a) {
  const __m128 s = _mm_add_ps(a.v, _mm_movehl_ps(a.v, a.v));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

static inline i32v zero_i32() { return {_mm_setzero_si128()}; }
static inline i16v load_i16(const int16_t* p) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))}; }
static inline i16v widen_i8(const int8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return {_mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8)};
}
static inline i16v and_bits(i16v a, i16v b) { return {_mm_and_si128(a.v, b.v)}; }
static inline i32v madd_i16(i16v a, i16v b, i32v c) { return {_mm_add_epi32(c.v, _mm_madd_epi16(a.v, b.v))}; }
static inline f32v to_f32(i32v a) { return {_mm_cvtepi32_ps(a.v)}; }
static inline int64_t reduce_add(i32v a) {
  alignas(16) int32_t lanes[4];
  _mm_store_si128(reinterpret_cast<__m128i*>(lanes), a.v);
  return int64_t(lanes[0]) + lanes[1] + lanes[2] + lanes[3];
}

// A kLanes x kLanes transpose in place.
static inline void transpose(f32v (&r)[4]) { _MM_TRANSPOSE4_PS(r[0].v, r[1].v, r[2].v, r[3].v); }

// Sums of four vectors, in four floats.
static inline void reduce_add4(f32v a, f32v b, f32v c, f32v d, float* out) {
  f32v r[4] = {a, b, c, d};
  transpose(r);
  _mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(r[0].v, r[1].v), _mm_add_ps(r[2].v, r[3].v)));
}

// Sums of four vectors times `scale`, in four floats. The sums fit 32 bits.
static inline void reduce_add4(i32v a, i32v b, i32v c, i32v d, float scale, float* out) {
  const __m128i ab = _mm_add_epi32(_mm_unpacklo_epi32(a.v, b.v), _mm_unpackhi_epi32(a.v, b.v));
  const __m128i cd = _mm_add_epi32(_mm_unpacklo_epi32(c.v, d.v), _mm_unpackhi_epi32(c.v, d.v));
  const __m128i s = _mm_add_epi32(_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd));
  _mm_storeu_ps(out, _mm_mul_ps(_mm_cvtepi32_ps(s), _mm_set1_ps(scale)));
}

}  // namespace HOTSET_ISA
}  // namespace hotset
