// Canonical scores: what a result's score is, bit for bit, on every build, thread and backend.
// f64 sums in a fixed order (8 running sums of stride 8, then a tree), rounded once to f32; -0 becomes 0.
// Products and sums are never fused: relaxed instructions are not used here.
import { SEARCH_SCAN_METRIC_IP, SEARCH_SCAN_METRIC_L2 } from "../gen/params";
import { simd } from "../lib/simd";

/** The score of a widened row; `query_square` is `canonical_square` of the query. */
export function canonical_score(metric: u32, row: usize, scale: f64, query: usize, query_square: f64, dim: u32): f32 {
  if (metric == SEARCH_SCAN_METRIC_L2) return <f32>canonical_distance(row, scale, query, dim);
  const product = canonical_dot(row, scale, query, dim);
  if (metric == SEARCH_SCAN_METRIC_IP) return positive_zero(<f32>product);
  const norms = query_square * canonical_square(row, scale, dim);
  if (norms == 0) return 0;
  return positive_zero(<f32>(product / Math.sqrt(norms)));
}

// Not x + 0: an optimiser may take that for x.
function positive_zero(x: f32): f32 {
  return x == 0 ? 0 : x;
}

/** sum (scale * x) * y. A scale of 1 changes nothing; the product of an f32 and an i8 is exact in f64. */
export function canonical_dot(x: usize, scale: f64, y: usize, dim: u32): f64 {
  return canonical_sum<Dot>(x, scale, y, dim);
}

export function canonical_square(x: usize, scale: f64, dim: u32): f64 {
  return canonical_sum<Square>(x, scale, x, dim);
}

export function canonical_distance(x: usize, scale: f64, y: usize, dim: u32): f64 {
  return canonical_sum<Distance>(x, scale, y, dim);
}

// Names for the terms of a sum: types, so that each sum is compiled for its own.
type Dot = i8;
type Square = i16;
type Distance = i32;

class canonical {
  @inline static term<K>(sum: v128, scale: v128, x: v128, y: v128): v128 {
    const value = f64x2.mul(scale, f64x2.promote_low_f32x4(x));
    if (sizeof<K>() == sizeof<Square>()) return f64x2.add(sum, f64x2.mul(value, value));
    const other = f64x2.promote_low_f32x4(y);
    if (sizeof<K>() == sizeof<Dot>()) return f64x2.add(sum, f64x2.mul(value, other));
    const difference = f64x2.sub(other, value);
    return f64x2.add(sum, f64x2.mul(difference, difference));
  }

  /** One more component, in lane 0; lane 1 keeps its sum. */
  @inline static even<K>(sum: v128, scale: v128, x: usize, y: usize): v128 {
    return v128.shuffle<i64>(canonical.term<K>(sum, scale, v128.load32_zero(x), v128.load32_zero(y)), sum, 0, 3);
  }
}

function canonical_sum<K>(x: usize, scale: f64, y: usize, dim: u32): f64 {
  const scales = f64x2.splat(scale);
  // Sums 0 and 1, 2 and 3, 4 and 5, 6 and 7.
  let a = f64x2.splat(0);
  let b = a;
  let c = a;
  let d = a;
  const end = x + (dim & ~7) * 4;
  for (; x < end; x += 32, y += 32) {
    a = canonical.term<K>(a, scales, v128.load64_zero(x), v128.load64_zero(y));
    b = canonical.term<K>(b, scales, v128.load64_zero(x, 8), v128.load64_zero(y, 8));
    c = canonical.term<K>(c, scales, v128.load64_zero(x, 16), v128.load64_zero(y, 16));
    d = canonical.term<K>(d, scales, v128.load64_zero(x, 24), v128.load64_zero(y, 24));
  }
  const rest = dim & 7;
  if (rest > 1) a = canonical.term<K>(a, scales, v128.load64_zero(x), v128.load64_zero(y));
  if (rest > 3) b = canonical.term<K>(b, scales, v128.load64_zero(x, 8), v128.load64_zero(y, 8));
  if (rest > 5) c = canonical.term<K>(c, scales, v128.load64_zero(x, 16), v128.load64_zero(y, 16));
  if (rest == 1) a = canonical.even<K>(a, scales, x, y);
  else if (rest == 3) b = canonical.even<K>(b, scales, x + 8, y + 8);
  else if (rest == 5) c = canonical.even<K>(c, scales, x + 16, y + 16);
  else if (rest == 7) d = canonical.even<K>(d, scales, x + 24, y + 24);
  const sums = f64x2.add(f64x2.add(a, c), f64x2.add(b, d));
  return f64x2.extract_lane(sums, 0) + f64x2.extract_lane(sums, 1);
}

/** Results in one integer order: better score first, then lower row. A smaller key is better. */
export function key_of(metric: u32, score: f32, row: u32): u64 {
  const bits = reinterpret<u32>(score);
  const ascending = bits & 0x80000000 ? ~bits : bits | 0x80000000;
  return ((<u64>(metric == SEARCH_SCAN_METRIC_L2 ? ascending : ~ascending)) << 32) | row;
}

export function score_of_key(metric: u32, key: u64): f32 {
  const high = <u32>(key >> 32);
  const ascending = metric == SEARCH_SCAN_METRIC_L2 ? high : ~high;
  return reinterpret<f32>(ascending & 0x80000000 ? ascending & 0x7fffffff : ~ascending);
}

/** The row at `row` as floats: written to `buffer [dim]`. */
export function widen_row<T>(row: usize, dim: u32, buffer: usize): usize {
  const end = buffer + (dim & ~3) * 4;
  for (; buffer < end; buffer += 16, row += 4 * sizeof<T>()) v128.store(buffer, simd.load<T>(row));
  for (let rest = dim & 3; rest > 0; rest--, buffer += 4, row += sizeof<T>()) {
    store<f32>(buffer, widen<T>(row));
  }
  return end - (dim & ~3) * 4;
}

/** One element. */
function widen<T>(address: usize): f32 {
  if (sizeof<T>() == 1) return <f32>load<i8>(address);
  if (isSigned<T>()) return reinterpret<f32>((<u32>load<u16>(address)) << 16);
  return f32x4.extract_lane(simd.widen_f16(i32x4.splat(<i32>load<i16>(address))), 0);
}
