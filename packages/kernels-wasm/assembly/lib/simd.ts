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

  /** Four elements as f32, exactly. */
  @inline static load<T>(address: usize): v128 {
    if (isFloat<T>()) return v128.load(address);
    if (sizeof<T>() == 1) return f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(i16x8.extend_low_i8x16_s(v128.load32_zero(address))));
    if (isSigned<T>()) return i32x4.shl(v128.load16x4_u(address), 16);
    return simd.widen_f16(v128.load16x4_s(address));
  }

  /** The first and the second four of eight elements: of bytes, as one load with a widening to 16 bits in it. */
  @inline static first<T>(address: usize): v128 {
    return sizeof<T>() == 1 ? f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(v128.load8x8_s(address))) : simd.load<T>(address);
  }
  @inline static second<T>(address: usize): v128 {
    if (sizeof<T>() == 1) return f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(v128.load8x8_s(address)));
    return simd.load<T>(address + 4 * sizeof<T>());
  }

  /** f16 bits, sign-extended, as f32. */
  @inline static widen_f16(bits: v128): v128 {
    // Exponent and fraction moved into place, the sign left at the top, then times 2^112 for the bias: exact,
    // subnormals too. What comes out at 2^16 or more was Inf or NaN.
    const value = f32x4.mul(v128.and(i32x4.shl(bits, 13), i32x4.splat(0x8fffe000)), f32x4.splat(reinterpret<f32>(0x77800000)));
    const infinite = v128.and(f32x4.ge(f32x4.abs(value), f32x4.splat(65536)), i32x4.splat(0x7f800000));
    return v128.or(value, infinite);
  }

  // What dot products are made of: four floats, or of i8 rows eight 16-bit integers, summed in pairs as 32-bit ones.

  @inline static lanes<T>(): u32 {
    return sizeof<T>() == 1 ? 8 : 4;
  }
  @inline static query_bytes<T>(): u32 {
    return sizeof<T>() == 1 ? 2 : 4;
  }
  @inline static terms<T>(row: usize): v128 {
    return sizeof<T>() == 1 ? v128.load8x8_s(row) : simd.load<T>(row);
  }
  @inline static madd_terms<T>(a: v128, b: v128, sum: v128): v128 {
    return sizeof<T>() == 1 ? i32x4.add(i32x4.dot_i16x8_s(a, b), sum) : simd.madd(a, b, sum);
  }
  @inline static sums<T>(sum: v128): v128 {
    return sizeof<T>() == 1 ? f32x4.convert_i32x4_s(sum) : sum;
  }
  @inline static sum4_terms<T>(a: v128, b: v128, c: v128, d: v128): v128 {
    return simd.sum4(simd.sums<T>(a), simd.sums<T>(b), simd.sums<T>(c), simd.sums<T>(d));
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
  /** `yes` where low < a < high, else `no`. */
  @inline static select_inside(a: v128, low: f32, high: f32, yes: v128, no: v128): v128 {
    return v128.bitselect(yes, no, v128.and(f32x4.gt(a, f32x4.splat(low)), f32x4.lt(a, f32x4.splat(high))));
  }
}
