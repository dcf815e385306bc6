// Blocks of q8_0: an f16 scale and 32 signed bytes. Static methods: see simd.ts.
import { simd } from "./simd";

/** Elements and bytes of a block. */
export const Q8: u32 = 32;
export const Q8_BYTES: u32 = 34;

export class q8 {
  /** The scale of a block in every lane. */
  @inline static scale(block: usize): v128 {
    return simd.widen_f16(i32x4.extend_low_i16x8_s(v128.load16_splat(block)));
  }
  /** Values `at` to `at + 4` of a block, times its scale. */
  @inline static load(block: usize, at: u32): v128 {
    return f32x4.mul(q8.scale(block), simd.load<i8>(block + 2 + at));
  }
  /** The sums of a block of integers times 32 floats, without the scale. */
  @inline static dot(block: usize, x: usize): v128 {
    let even = f32x4.mul(simd.first<i8>(block + 2), v128.load(x));
    let odd = f32x4.mul(simd.second<i8>(block + 2), v128.load(x, 16));
    even = simd.madd(simd.first<i8>(block + 10), v128.load(x, 32), even);
    odd = simd.madd(simd.second<i8>(block + 10), v128.load(x, 48), odd);
    even = simd.madd(simd.first<i8>(block + 18), v128.load(x, 64), even);
    odd = simd.madd(simd.second<i8>(block + 18), v128.load(x, 80), odd);
    even = simd.madd(simd.first<i8>(block + 26), v128.load(x, 96), even);
    odd = simd.madd(simd.second<i8>(block + 26), v128.load(x, 112), odd);
    return f32x4.add(even, odd);
  }
}
