// Floats by their bits. Shaders may assume that NaN and Inf do not occur, so no comparison here asks a float what it is.
const infinity_bits: u32 = 0x7f800000u;
const nan_bits: u32 = 0x7fc00000u;
const sign_bit: u32 = 0x80000000u;

fn magnitude_of(bits: u32) -> u32 {
  return bits & 0x7fffffffu;
}

fn is_finite(value: f32) -> bool {
  return magnitude_of(bitcast<u32>(value)) < infinity_bits;
}

// Which arithmetic may take for 0, by the standard of WGSL.
fn is_subnormal(bits: u32) -> bool {
  return magnitude_of(bits) - 1u < 0x7fffffu;
}

// A key that orders as the floats do, -0 as 0. Every number and infinity has one above 0.
fn order_key(bits: u32) -> u32 {
  if (bits > sign_bit) {
    return ~bits;
  }
  return magnitude_of(bits) | sign_bit;
}

fn bits_of_key(key: u32) -> u32 {
  return select(~key, key ^ sign_bit, (key & sign_bit) != 0u);
}

// 2^exponent; 0 below the smallest normal number.
fn power_of_two(exponent: i32) -> f32 {
  return select(bitcast<f32>(u32(min(exponent, 127) + 127) << 23u), 0.0, exponent < -126);
}

// 1 / sqrt(value) to about one rounding: WGSL promises 2 ULP of inverseSqrt, a Newton step mends it.
fn inverse_root(value: f32) -> f32 {
  let guess = inverseSqrt(value);
  return guess * fma(-0.5 * value * guess, guess, 1.5);
}

// mantissa * 2^exponent, subnormals too; infinities and NaN have exponents of their own.
struct Split {
  mantissa: f32,
  exponent: i32,
}
const zero_exponent: i32 = -20000;
const infinity_exponent: i32 = 20000;
const nan_exponent: i32 = 20001;

fn split(bits: u32) -> Split {
  let magnitude = magnitude_of(bits);
  let sign = bits & sign_bit;
  if (magnitude > infinity_bits) {
    return Split(1.0, nan_exponent);
  }
  if (magnitude == infinity_bits) {
    return Split(bitcast<f32>(sign | 0x3f800000u), infinity_exponent);
  }
  if (magnitude == 0u) {
    return Split(0.0, zero_exponent);
  }
  var exponent = i32(magnitude >> 23u) - 127;
  var fraction = magnitude & 0x7fffffu;
  if (exponent == -127) {
    let shift = countLeadingZeros(fraction) - 8u;
    fraction = (fraction << shift) & 0x7fffffu;
    exponent = -126 - i32(shift);
  }
  return Split(bitcast<f32>(sign | 0x3f800000u | fraction), exponent);
}

fn product(a: Split, b: Split) -> Split {
  if (a.exponent == nan_exponent || b.exponent == nan_exponent) {
    return Split(1.0, nan_exponent);
  }
  let zero = a.exponent == zero_exponent || b.exponent == zero_exponent;
  if (a.exponent == infinity_exponent || b.exponent == infinity_exponent) {
    return Split(a.mantissa * b.mantissa, select(infinity_exponent, nan_exponent, zero));
  }
  if (zero) {
    return Split(0.0, zero_exponent);
  }
  return Split(a.mantissa * b.mantissa, a.exponent + b.exponent);
}

// The bits of value * 2^exponent: infinite where it is too large, 0 below the smallest normal number.
fn scaled_bits(value: f32, exponent: i32) -> u32 {
  let parts = split(bitcast<u32>(value));
  let sum = parts.exponent + exponent;
  let sign = bitcast<u32>(parts.mantissa) & sign_bit;
  if (parts.exponent == zero_exponent || sum < -126) {
    return 0u;
  }
  return select(sign | (u32(sum + 127) << 23u) | (bitcast<u32>(parts.mantissa) & 0x7fffffu), sign | infinity_bits, sum > 127);
}
