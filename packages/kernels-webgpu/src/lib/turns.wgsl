// Angles as fractions of a turn, by whole numbers: position times frequency modulo 1 with 96 bits behind the point, so that
// an angle of 2^31 is as exact as a small one. Sine and cosine of what is left of a quarter turn are polynomials, fitted to
// a relative error of 2^-37 and 2^-33 up to 1/8 turn; the functions of WGSL promise 2^-11 only, and that near 0.
// The 64-bit product of two words: low, high.
fn wide_product(a: u32, b: u32) -> vec2u {
  let a_low = a & 0xffffu;
  let a_high = a >> 16u;
  let b_low = b & 0xffffu;
  let b_high = b >> 16u;
  let low = a_low * b_low;
  let middle = a_high * b_low + (low >> 16u);
  let other = a_low * b_high + (middle & 0xffffu);
  return vec2u((other << 16u) | (low & 0xffffu), a_high * b_high + (middle >> 16u) + (other >> 16u));
}

// factor * turns modulo 1; x holds the bits next to the point.
fn turns_times(factor: u32, turns: vec3u) -> vec3u {
  let last = wide_product(factor, turns.z);
  let middle = wide_product(factor, turns.y);
  let y = middle.x + last.y;
  let carry = middle.y + select(0u, 1u, y < last.y);
  return vec3u(factor * turns.x + carry, y, last.x);
}

// Cosine and sine.
fn circle_point(turns: vec3u) -> vec2f {
  let quarter = (turns.x + 0x20000000u) >> 30u;
  var high = turns.x - (quarter << 30u);
  var low = turns.y;
  let negative = (high & 0x80000000u) != 0u;
  if (negative) {
    low = ~low + 1u;
    high = ~high + select(0u, 1u, low == 0u);
  }
  // The first 24 bits, whatever is in front of them.
  var shift = countLeadingZeros(high);
  if (high == 0u) {
    shift = 32u + countLeadingZeros(low);
    high = low;
    low = 0u;
  }
  let left = shift % 32u;
  let top = (high << left) | select(0u, low >> ((32u - left) & 31u), left > 0u);
  let rounded = f32((top >> 8u) + ((top >> 7u) & 1u));
  // 2 pi, and what its rounding took.
  let scaled = fma(rounded, 6.2831855, rounded * -1.7484556e-7);
  let angle = select(scaled, -scaled, negative) * power_of_two(-24 - i32(shift));
  let point = small_circle_point(angle);
  let turned = select(point, vec2f(-point.y, point.x), (quarter & 1u) == 1u);
  return select(turned, -turned, (quarter & 2u) == 2u);
}

// Of an angle in radians, up to pi / 4.
fn small_circle_point(angle: f32) -> vec2f {
  let z = angle * angle;
  let sine = fma(fma(fma(2.718114e-6, z, -1.9839311e-4), z, 8.333329e-3), z, -0.16666667);
  let cosine = fma(fma(2.4433084e-5, z, -1.3887316e-3), z, 4.1666646e-2);
  return vec2f(fma(z * z, cosine, fma(-0.5, z, 1.0)), fma(angle * z, sine, angle));
}
