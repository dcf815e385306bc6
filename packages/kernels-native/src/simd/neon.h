// NEON of AArch64: 4 floats, 32 registers.
#pragma once
#include <arm_neon.h>

namespace hotset {
namespace HOTSET_ISA {

constexpr int kLanes = 4;
constexpr int kRegisters = 32;
constexpr int kLanes16 = 8;
// 6 queries x 4 row vectors are 24 sums; with 4 loads and a broadcast, 29 of 32 registers.
constexpr int kPanelVectors = 4;
constexpr int kQueryTile = 6;

struct f32v {
  float32x4_t v;
};
struct i16v {
  int16x8_t v;
};
struct i32v {
  int32x4_t v;
};

static inline f32v zero() { return {vdupq_n_f32(0)}; }
static inline f32v splat(float x) { return {vdupq_n_f32(x)}; }
static inline f32v load(const float* p) { return {vld1q_f32(p)}; }
static inline f32v load(const f16* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))))}; }
static inline f32v load(const bf16* p) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)), 16))}; }
static inline f32v load(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  const int16x8_t words = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)))};
}
static inline void store(float* p, f32v a) { vst1q_f32(p, a.v); }
static inline f32v add(f32v a, f32v b) { return {vaddq_f32(a.v, b.v)}; }
static inline f32v sub(f32v a, f32v b) { return {vsubq_f32(a.v, b.v)}; }
static inline f32v mul(f32v a, f32v b) { return {vmulq_f32(a.v, b.v)}; }
static inline f32v div(f32v a, f32v b) { return {vdivq_f32(a.v, b.v)}; }
static inline f32v sqrt(f32v a) { return {vsqrtq_f32(a.v)}; }
static inline f32v madd(f32v a, f32v b, f32v c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
// Bit i: not (a[i] < b[i]), so a NaN counts.
static inline uint32_t not_less(f32v a, f32v b) {
  static const uint32_t bits[4] = {1, 2, 4, 8};
  return 15u & ~vaddvq_u32(vandq_u32(vcltq_f32(a.v, b.v), vld1q_u32(bits)));
}
static inline f32v select_inside(f32v a, float low, float high, f32v yes, f32v no) {
  const uint32x4_t inside = vandq_u32(vcgtq_f32(a.v, vdupq_n_f32(low)), vcltq_f32(a.v, vdupq_n_f32(high)));
  return {vbslq_f32(inside, yes.v, no.v)};
}
// The larger; b where either is NaN.
static inline f32v larger(f32v a, f32v b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
static inline f32v smaller(f32v a, f32v b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
// 2^n, given n + 1.5 * 2^23; 0 for n = -127.
static inline f32v power_of_two(f32v a) { return {vreinterpretq_f32_s32(vaddq_s32(vshlq_n_s32(vreinterpretq_s32_f32(a.v), 23), vdupq_n_s32(127 << 23)))}; }
static inline float reduce_add(f32v a) { return vaddvq_f32(a.v); }

static inline i32v zero_i32() { return {vdupq_n_s32(0)}; }
static inline i16v load_i16(const int16_t* p) { return {vld1q_s16(p)}; }
static inline i16v widen_i8(const int8_t* p) { return {vmovl_s8(vld1_s8(p))}; }
static inline i16v and_bits(i16v a, i16v b) { return {vandq_s16(a.v, b.v)}; }
static inline i32v madd_i16(i16v a, i16v b, i32v c) { return {vmlal_high_s16(vmlal_s16(c.v, vget_low_s16(a.v), vget_low_s16(b.v)), a.v, b.v)}; }
static inline f32v to_f32(i32v a) { return {vcvtq_f32_s32(a.v)}; }
static inline int64_t reduce_add(i32v a) { return vaddlvq_s32(a.v); }

// A kLanes x kLanes transpose in place.
static inline void transpose(f32v (&r)[4]) {
  const float32x4_t a = vtrn1q_f32(r[0].v, r[1].v), b = vtrn2q_f32(r[0].v, r[1].v), c = vtrn1q_f32(r[2].v, r[3].v), d = vtrn2q_f32(r[2].v, r[3].v);
  r[0].v = vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(c)));
  r[1].v = vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(b), vreinterpretq_f64_f32(d)));
  r[2].v = vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(c)));
  r[3].v = vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(b), vreinterpretq_f64_f32(d)));
}

// Sums of four vectors, in four floats.
static inline void reduce_add4(f32v a, f32v b, f32v c, f32v d, float* out) { vst1q_f32(out, vpaddq_f32(vpaddq_f32(a.v, b.v), vpaddq_f32(c.v, d.v))); }
// Sums of four vectors times `scale`, in four floats. The sums fit 32 bits.
static inline void reduce_add4(i32v a, i32v b, i32v c, i32v d, float scale, float* out) {
  vst1q_f32(out, vmulq_n_f32(vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(a.v, b.v), vpaddq_s32(c.v, d.v))), scale));
}

}  // namespace HOTSET_ISA
}  // namespace hotset
