/**
 * The vector vocabulary. Element types of rows: f32, u16 for f16 bits, i16 for bf16 bits, i8.
 * Static methods, because only those can be `@inline` and still be TypeScript that a formatter reads.
 */
export class simd {
  /** a * b + c, fused where the build and the engine do so. Never used for f64. */
  @inline static madd(a: v128, b: v128, c: v128): v128 {
    if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
    return f32x4.add(f32x4.mul(a, b), c);
  }

  /** Sums of products of neighbours, in 32-bit integers, plus c. */
  @inline static madd_i16(a: v128, b: v128, c: v128): v128 {
    return i32x4.add(i32x4.dot_i16x8_s(a, b), c);
  }

  /** Four elements as f32, exactly. `offset` in bytes is a constant. */
  @inline static load<T>(address: usize, offset: usize): v128 {
    if (isFloat<T>()) return v128.load(address, offset);
    if (sizeof<T>() == 1) return f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(i16x8.extend_low_i8x16_s(v128.load32_zero(address, offset))));
    if (isSigned<T>()) return i32x4.shl(v128.load16x4_u(address, offset), 16);
    return simd.widen_f16(v128.load16x4_s(address, offset));
  }

  /** f16 bits, sign-extended, as f32. */
  @inline static widen_f16(bits: v128): v128 {
    // Exponent and fraction moved into place, the sign left at the top, then times 2^112 for the bias: exact,
    // subnormals too. What comes out at 2^16 or more was Inf or NaN.
    const value = f32x4.mul(v128.and(i32x4.shl(bits, 13), i32x4.splat(0x8fffe000)), f32x4.splat(reinterpret<f32>(0x77800000)));
    const infinite = v128.and(f32x4.ge(f32x4.abs(value), f32x4.splat(65536)), i32x4.splat(0x7f800000));
    return v128.or(value, infinite);
  }

  /** Lanes of a row-major 4 x 4 block of 32-bit values: 01 of rows 0 and 1 interleaved, then 23. */
  @inline static low(a: v128, b: v128): v128 {
    return v128.shuffle<i32>(a, b, 0, 4, 1, 5);
  }
  @inline static high(a: v128, b: v128): v128 {
    return v128.shuffle<i32>(a, b, 2, 6, 3, 7);
  }
  @inline static low_pairs(a: v128, b: v128): v128 {
    return v128.shuffle<i64>(a, b, 0, 2);
  }
  @inline static high_pairs(a: v128, b: v128): v128 {
    return v128.shuffle<i64>(a, b, 1, 3);
  }

  /** The sums of four vectors, as the four lanes of one. */
  @inline static sum4(a: v128, b: v128, c: v128, d: v128): v128 {
    const ab = f32x4.add(simd.low(a, b), simd.high(a, b));
    const cd = f32x4.add(simd.low(c, d), simd.high(c, d));
    return f32x4.add(simd.low_pairs(ab, cd), simd.high_pairs(ab, cd));
  }
  @inline static sum4_i32(a: v128, b: v128, c: v128, d: v128): v128 {
    const ab = i32x4.add(simd.low(a, b), simd.high(a, b));
    const cd = i32x4.add(simd.low(c, d), simd.high(c, d));
    return i32x4.add(simd.low_pairs(ab, cd), simd.high_pairs(ab, cd));
  }

  @inline static sum(a: v128): f32 {
    const half = f32x4.add(a, v128.shuffle<i64>(a, a, 1, 0));
    return f32x4.extract_lane(half, 0) + f32x4.extract_lane(half, 1);
  }

  /** `yes` where low < a < high, else `no`. */
  @inline static select_inside(a: v128, low: f32, high: f32, yes: v128, no: v128): v128 {
    return v128.bitselect(yes, no, v128.and(f32x4.gt(a, f32x4.splat(low)), f32x4.lt(a, f32x4.splat(high))));
  }
}
